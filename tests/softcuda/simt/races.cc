// Finds races in shared memory: see races.h.
#include "global_memory.h"
#include "simt.h"

namespace simt {

constexpr uint16_t UNDER_WAY = 0x0800;  // of a write: a copy whose end has not been waited for
constexpr uint16_t LANES = 0x1000;      // of a read: several threads of one warp, this one is one of them
constexpr uint16_t WARPS = 0x2000;      // of a read: threads of several warps
static_assert(BLOCK_THREADS_MAX == THREAD + 1, "a thread's number fits");

static unsigned warp_of(uint16_t who) { return (who & THREAD) / WARP_LANES; }

Trace now(const Thread* me, unsigned bytes, unsigned flags) {
    return {me->block->epoch, uint16_t(me->block->warp_of(me).epoch & 0xfff), uint16_t(bytes),
            uint16_t(me->linear | flags)};
}

bool is_unordered(const Trace& trace, const Trace& mine) {
    if (trace.epoch != mine.epoch || (trace.bytes & mine.bytes) == 0) return false;
    if (trace.who & WARPS || warp_of(trace.who) != warp_of(mine.who)) return true;
    if (trace.warp_epoch != mine.warp_epoch) return false;
    return trace.who & LANES || ((trace.who ^ mine.who) & THREAD) != 0;
}

[[noreturn]] static void report(const Watched& part, const Cell& cell, const char* mine, const Trace& other,
                                const char* others) {
    const bool is_dynamic = part.begin == reinterpret_cast<uintptr_t>(current->block->dynamic_shared);
    fail("race: it %s the word at byte %td of %s shared memory, which thread %u %s", mine,
         4 * (&cell - part.cells), is_dynamic ? "dynamic" : "static", unsigned(other.who & THREAD), others);
}

static void check(const Watched& part, const Cell& cell, const Trace& mine, const char* does, Access access) {
    // A copy of a block before does not count: that block has ended with an error.
    const bool under_way = cell.write.who & UNDER_WAY && cell.write.epoch >= current->block->first_epoch;
    if (under_way) report(part, cell, does, cell.write, "copies to and has not waited for");
    const bool both_atomic = access == Access::Atomic && cell.write.who & ATOMIC;
    if (!both_atomic && is_unordered(cell.write, mine)) {
        report(part, cell, does, cell.write, "writes with no barrier between");
    }
    if (access != Access::Read && is_unordered(cell.read, mine)) {
        report(part, cell, does, cell.read, "reads with no barrier between");
    }
}

static void note_read(Trace& read, const Trace& mine) {
    if (read.epoch != mine.epoch) {
        read = mine;
    } else if (warp_of(read.who) != warp_of(mine.who)) {
        read.who |= WARPS;
        read.bytes |= mine.bytes;
    } else if (read.who & WARPS) {
        read.bytes |= mine.bytes;
    } else if (read.warp_epoch != mine.warp_epoch) {
        read = mine;
    } else {
        if ((read.who ^ mine.who) & THREAD) read.who |= LANES;
        read.bytes |= mine.bytes;
    }
}

static void watch_word(const Watched& part, Cell& cell, const Trace& mine, Access access) {
    switch (access) {
        case Access::Read:
            check(part, cell, mine, "reads", access);
            note_read(cell.read, mine);
            return;
        case Access::Write:
            check(part, cell, mine, "writes", access);
            break;
        case Access::Atomic:
            check(part, cell, mine, "changes", access);
            break;
        case Access::CopyBegins:
            check(part, cell, mine, "copies to", access);
            break;
        case Access::CopyEnds:
            break;
    }
    cell = {mine, {}};
}

// An access to shared memory.
static __attribute__((noinline)) void watch_shared(const Watched& part, uintptr_t first, size_t bytes, Access access) {
    const unsigned flags = access == Access::Atomic ? ATOMIC : access == Access::CopyBegins ? UNDER_WAY : 0;
    const Trace whole = now(current, 0xf, flags);
    for_words(first, bytes, [&](uintptr_t word, unsigned of_word) {
        Trace mine = whole;
        mine.bytes = uint16_t(of_word & 0xf);
        watch_word(part, part.cells[word], mine, access);
    });
}

void watch(const void* address, size_t bytes, Access access) {
    const Block* block = current->block;
    if (block == nullptr) return;
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    // Stacks, and what the emulation keeps of the threads.
    if (at - block->own_begin < block->own_bytes) return;
    for (const Watched& part : block->watched) {
        if (at - part.begin < part.bytes) return watch_shared(part, at - part.begin, bytes, access);
    }
    block->global->watch(at, bytes, access);
}

void fence() {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    Thread* me = current;
    me->fences++;
    me->fence = now(me, 0xf);
}

}  // namespace simt

// ---- what the compiler calls ----------------------------------------------------------------------------------------

extern "C" {

void __tsan_init() {}

#define SIMT_WATCH(bytes)                                                                             \
    void __tsan_read##bytes(void* at) { simt::watch(at, bytes, simt::Access::Read); }                 \
    void __tsan_write##bytes(void* at) { simt::watch(at, bytes, simt::Access::Write); }               \
    void __tsan_unaligned_read##bytes(void* at) { simt::watch(at, bytes, simt::Access::Read); }       \
    void __tsan_unaligned_write##bytes(void* at) { simt::watch(at, bytes, simt::Access::Write); }

SIMT_WATCH(1)
SIMT_WATCH(2)
SIMT_WATCH(4)
SIMT_WATCH(8)
SIMT_WATCH(16)
#undef SIMT_WATCH

void __tsan_read_range(void* at, size_t bytes) { simt::watch(at, bytes, simt::Access::Read); }
void __tsan_write_range(void* at, size_t bytes) { simt::watch(at, bytes, simt::Access::Write); }

}  // extern "C"
