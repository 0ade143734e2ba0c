// Races: two threads access the same byte, one of them writes, and nothing orders the two. Here, in shared memory;
// global_memory.h says what of that is found elsewhere.
//
// Kernels are compiled as for a thread sanitiser: before each access they call a function, which is one of races.cc
// here. It keeps for every word who wrote and who read it last. Accesses are ordered by __syncthreads between them, by
// __syncwarp if both threads are of one warp, and by nothing else: exchanges of a warp say nothing about memory. A
// __syncwarp of some lanes counts as one of all. A copy is a write from its begin to the wait for its end; until then
// not even the thread that began it may look.
//
// So a race is found whatever the order in which the emulation runs the threads, if both accesses are made at all.
#pragma once

namespace simt {

struct Thread;
class GlobalMemory;

enum class Access : uint8_t { Read, Write, Atomic, CopyBegins, CopyEnds };

// Notes an access of the running thread to shared or global memory; fails if it is a race.
void watch(const void* address, size_t bytes, Access access);

// __threadfence of the running thread.
void fence();

// An access as a word's cell keeps it: when, which bytes, and the thread with what else there is to know.
struct Trace {
    uint32_t epoch;            // of the block: one more at each barrier, and never the same in two blocks
    uint16_t warp_epoch : 12;  // of its warp: one more at each __syncwarp
    uint16_t bytes : 4;        // a bit for each
    uint16_t who;              // a thread, and flags
};
static_assert(sizeof(Trace) == 8, "there are many");

constexpr uint16_t THREAD = 0x03ff;
constexpr uint16_t ATOMIC = 0x0400;  // of a write

// What the running thread does now, to these bytes of a word and with these flags.
Trace now(const Thread* me, unsigned bytes, unsigned flags = 0);
// Both are of the same bytes and may be made at the same time. They are of threads of one block.
bool is_unordered(const Trace& trace, const Trace& mine);

// Calls `each(word, bytes)` for the words that an access is of: their numbers, and a bit for each byte of them.
template <class Each>
inline void for_words(uintptr_t address, size_t bytes, Each each) {
    for (const uintptr_t end = address + bytes; address < end;) {
        const uintptr_t first = address % 4, last = end - address < 4 - first ? first + (end - address) : 4;
        each(address / 4, (1u << last) - (1u << first));
        address += last - first;
    }
}

// What is known of a word: of different bytes, only the last access. All zeros: nothing.
struct Cell {
    Trace write, read;
};

// The cells of a part of shared memory.
struct Watched {
    uintptr_t begin;
    size_t bytes;
    Cell* cells;  // one a word
};

}  // namespace simt
