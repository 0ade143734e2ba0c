// Threads and blocks, barriers, and what stops a launch. runtime.cc runs them.
#pragma once

namespace simt {

constexpr unsigned WARP_LANES = 32;
constexpr unsigned BLOCK_THREADS_MAX = 1024;
constexpr unsigned COPIES_MAX = 256;  // asynchronous copies of one thread under way

// What a thread that cannot run waits for.
enum class Wait : uint8_t { Nothing, Barrier, Lanes, Predecessor };

// A line of device code.
struct Place {
    const char* file;
    int line;
};

// An asynchronous copy of 16 bytes that has not been waited for.
struct Copy {
    void* to;
    const void* from;
    uint32_t group;
};

struct Block;

struct Thread {
    dim3 index;
    unsigned linear;
    Block* block;
    void* stack_pointer;  // while another thread runs
    void* stack_end;      // a multiple of 16
    Wait wait;
    bool waited;            // has called pdl_wait
    bool waits_at_the_end;  // will call it when it returns
    // What it waits for, and of a warp's exchange also what it gives and gets.
    const char* exchange;
    Place place;
    uint32_t lanes;
    alignas(16) unsigned char given[48];
    alignas(16) unsigned char received[16];
    // Asynchronous copies that have not been waited for.
    uint32_t groups_committed;
    unsigned copies_pending;
    Copy* copies;  // room for COPIES_MAX
    // How often it has fenced, and the last time.
    uint32_t fences;
    Trace fence;

    unsigned lane() const { return linear % WARP_LANES; }
};

// Bit l of a mask is lane l.
struct Warp {
    uint32_t alive;
    uint32_t ready;
    uint32_t arrived;  // at an exchange that is not yet complete
    uint16_t epoch;    // one more at each __syncwarp
};

// A kernel by its name: src/emulate/library.rs holds the same struct.
struct Kernel {
    const char* name;
    void (*call)(const void* const* parameters);
    uint32_t parameters;
    const uint32_t* parameter_bytes;
    const Kernel* next;
};

// One launch as the host asks for it: src/emulate/library.rs holds the same struct.
struct Launch {
    const Kernel* kernel;
    uint32_t grid[3];
    uint32_t block[3];
    uint32_t shared_bytes;
    uint8_t copies_late;  // copy_async copies when it is waited for, instead of at once
    uint8_t greedy;       // a warp runs as long as it can, blocks and warps from the last to the first
    uint8_t chained;      // every thread has to call pdl_wait
    uint8_t reserved;
    const void* const* parameters;
    void* host;                         // handed to the two functions
    void (*predecessor)(void* host);    // 0, or ends the kernel before; called when all threads of the first block wait
    uint8_t (*is_memory)(void* host, uint64_t address, uint64_t bytes);  // 0, or whether this is device memory
};

struct Block {
    dim3 index, size, grid;
    const Launch* launch;
    unsigned threads_all, threads_alive, at_barrier;
    Place barrier;
    unsigned barrier_sum, barrier_result;  // of the threads' predicates
    uint32_t epoch, first_epoch;              // one more at each barrier; when the block began
    Watched watched[2];                       // its dynamic and its static shared memory
    GlobalMemory* global;                     // what is known of the rest, but not of these bytes:
    uintptr_t own_begin;
    size_t own_bytes;
    Trace atomic;                             // the last one on global memory
    uint32_t fences_before_atomic;            // of its thread
    bool predecessor_ended;
    bool failed;
    unsigned char* dynamic_shared;
    Warp warps[BLOCK_THREADS_MAX / WARP_LANES];
    Thread threads[BLOCK_THREADS_MAX];

    Warp& warp_of(const Thread* thread) { return warps[thread->linear / WARP_LANES]; }
    Thread* lanes_of(const Thread* thread) { return &threads[thread->linear / WARP_LANES * WARP_LANES]; }
};

// The thread that runs; one that belongs to no block while none does. It has a value in the image, which keeps it apart
// from shared variables.
extern __thread Thread* current;

// Ends the launch: what is wrong, in words, of which the kernel, block and thread come first.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Lets other threads run until this one is ready.
void wait_for(Wait wait);

// Waits until all threads that have not ended are here. How many of them gave a predicate that holds.
unsigned barrier(bool predicate, Place place);

// Puts `current->given` forth. True for the one lane that came last: it makes what every lane in the mask receives, and
// calls `end_exchange`. False for the others, once that is done. `whole`: all 32 lanes take part, or it is an error.
bool begin_exchange(const char* what, uint32_t lanes, bool whole);
void end_exchange();

// Fail unless the bytes are shared memory of this block, or device memory as far as the host says what that is.
void check_shared(const char* what, const void* pointer, size_t bytes);
void check_global(const char* what, const void* pointer, size_t bytes);

}  // namespace simt

#define threadIdx (simt::current->index)
#define blockIdx (simt::current->block->index)
#define blockDim (simt::current->block->size)
#define gridDim (simt::current->block->grid)
#define warpSize 32

#define __syncthreads() ((void)simt::barrier(false, {__FILE__, __LINE__}))
#define __syncthreads_count(p) int(simt::barrier((p) != 0, {__FILE__, __LINE__}))
#define __syncthreads_or(p) int(simt::barrier((p) != 0, {__FILE__, __LINE__}) != 0)
#define __syncthreads_and(p) int(simt::barrier((p) == 0, {__FILE__, __LINE__}) == 0)

[[noreturn]] inline void __trap() { simt::fail("__trap"); }
