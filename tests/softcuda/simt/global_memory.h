// Accesses to global memory that nothing orders, as far as writes come before them.
//
// As in shared memory, a barrier is needed between a write and another thread's access to the same byte, in one block.
// Between blocks it takes more, on both sides of an atomic that tells one block about the other:
//
//   write, __threadfence, atomic    the writer's thread fences, or a barrier comes between it and a thread that does;
//                                   and a barrier comes between the fence and another thread's atomic
//   atomic, __threadfence, access   likewise
//
// Blocks run one after the other, so nothing of this shows in the result. Of reads nothing is kept: that one block
// overwrites what another may still read is not found. Which atomic is seen by which is not looked at, either.
#pragma once
#include "simt.h"

#include <unordered_map>
#include <vector>

namespace simt {

class GlobalMemory {
    static constexpr size_t PAGE = 4096, PAGES_MAX = 4096, RECENT = 64;
    static constexpr uint16_t RELEASED = 0x4000;  // of a write: an atomic behind a fence has come after it

    struct Page {
        Trace writes[PAGE / 4] = {};  // of each word the last one
    };
    // A write of this block that no atomic has told others of.
    struct Written {
        uintptr_t word;
        Trace trace;
        uint32_t fences;  // of its thread until then
    };

    std::unordered_map<uintptr_t, Page*> pages_;
    struct {
        uintptr_t number;  // no page of memory is number 0
        Page* page;        // 0: there is none
    } recent_[RECENT] = {};  // the pages looked for last, each at its number's remainder
    std::vector<Written> written_;
    uint32_t launch_epoch_ = 0;  // when the launch began

    Page* page_of(uintptr_t address, bool make) {
        const uintptr_t number = address / PAGE;
        const auto& recent = recent_[number % RECENT];
        return number == recent.number && (recent.page != nullptr || !make) ? recent.page : find_page(number, make);
    }
    Page* find_page(uintptr_t number, bool make);
    void watch_words(uintptr_t address, size_t bytes, Access access);
    void release();
    void check(const Trace& write, const Trace& mine, Access access, uintptr_t word) const;
    bool has_acquired() const;

   public:
    void begin_launch(uint32_t epoch);
    void begin_block() { written_.clear(); }
    void watch(uintptr_t address, size_t bytes, Access access) {
        // Nearly all reads are of pages that no kernel writes.
        if (access == Access::Read && !page_of(address, false) && !page_of(address + bytes - 1, false)) return;
        watch_words(address, bytes, access);
    }
};

}  // namespace simt
