// Runs launches: fibers, their scheduler, and what the emulation can check. One copy in each library of kernels.
#include "simt.h"

#include <cstdarg>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "faults.h"
#include "global_memory.h"
#include "shared_memory.h"

namespace simt {

const Kernel* kernels = nullptr;

static Thread nobody = {};
__thread Thread* current = &nobody;

constexpr size_t STACK_BYTES = 64 << 10;
constexpr uint64_t STACK_END = 0x656e64206f66206dull;  // the last word of a stack, which nobody may write

// What a launch works in; kept for the next one. Pages that a block never touches are never made.
struct Workspace {
    Block block;
    Copy copies[BLOCK_THREADS_MAX][COPIES_MAX];
    alignas(4096) unsigned char stacks[BLOCK_THREADS_MAX][STACK_BYTES];
    DynamicShared dynamic;
    StaticShared fixed;
    Cell* dynamic_cells;
    Cell* fixed_cells;
    GlobalMemory global;
    void* scheduler;  // its stack pointer while threads run
    char* error;
    size_t error_bytes;
};

static Workspace* workspace_of(Block* block) { return reinterpret_cast<Workspace*>(block); }

// ---- fibers ---------------------------------------------------------------------------------------------------------

// Leaves the stack pointer in *from, goes on where `to` was left. The x86-64 convention keeps these six registers.
extern "C" void simt_switch(void** from, void* to);
asm(R"(
.text
.hidden simt_switch
.globl simt_switch
.type simt_switch, @function
simt_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simt_switch, .-simt_switch
)");

static void ready(Thread* thread) {
    thread->wait = Wait::Nothing;
    thread->block->warp_of(thread).ready |= 1u << thread->lane();
}

// The warp that is looked at after `warp`: the orders of the two ways to run are opposite, so that of two threads of
// different warps each is once the first.
static unsigned warp_after(const Block* block, unsigned warp) {
    const unsigned warps = (block->threads_all + WARP_LANES - 1) / WARP_LANES;
    if (block->launch->greedy) return warp == 0 ? warps - 1 : warp - 1;
    return warp + 1 == warps ? 0 : warp + 1;
}

// A thread that can run, of the warps after `warp` and then of that one, or null.
static Thread* pick_after(Block* block, unsigned warp) {
    const unsigned warps = (block->threads_all + WARP_LANES - 1) / WARP_LANES;
    for (unsigned i = 0; i < warps; i++) {
        warp = warp_after(block, warp);
        const uint32_t lanes = block->warps[warp].ready;
        if (lanes != 0) return &block->threads[warp * WARP_LANES + unsigned(__builtin_ctz(lanes))];
    }
    return nullptr;
}

// The thread that runs after `last`, or null.
static Thread* pick(Block* block, const Thread* last) {
    const uint32_t own = block->warp_of(last).ready, later = own & ~((2u << last->lane()) - 1);
    const uint32_t lanes = block->launch->greedy && later == 0 ? own : later;
    if (lanes != 0) return &block->lanes_of(last)[__builtin_ctz(lanes)];
    return pick_after(block, last->linear / WARP_LANES);
}

// Lets another thread run; without one, the scheduler decides what that means.
static void run_another() {
    Thread* me = current;
    Thread* next = pick(me->block, me);
    if (next == me) return;
    if (next != nullptr) current = next;
    simt_switch(&me->stack_pointer, next != nullptr ? next->stack_pointer : workspace_of(me->block)->scheduler);
}

void wait_for(Wait wait) {
    Thread* me = current;
    me->wait = wait;
    me->block->warp_of(me).ready &= ~(1u << me->lane());
    run_another();
}

// Ends the launch: kernel and block, then what the format says.
__attribute__((format(printf, 2, 3))) static void report(Block* block, const char* format, ...) {
    Workspace* workspace = workspace_of(block);
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const dim3 at = block->index;
    snprintf(workspace->error, workspace->error_bytes, "%s, block (%u, %u, %u)%s", block->launch->kernel->name, at.x,
             at.y, at.z, text);
    block->failed = true;
}

void fail(const char* format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    Block* block = current->block;
    const dim3 at = current->index;
    report(block, ", thread (%u, %u, %u): %s", at.x, at.y, at.z, text);
    void* dead;
    simt_switch(&dead, workspace_of(block)->scheduler);
    __builtin_unreachable();
}

// ---- barriers -------------------------------------------------------------------------------------------------------

static void release_barrier(Block* block) {
    block->barrier_result = block->barrier_sum;
    block->barrier_sum = block->at_barrier = 0;
    block->epoch++;
    for (unsigned i = 0; i < block->threads_all; i++) {
        if (block->threads[i].wait == Wait::Barrier) ready(&block->threads[i]);
    }
}

unsigned barrier(bool predicate, Place place) {
    Block* block = current->block;
    if (block->at_barrier == 0) {
        block->barrier = place;
    } else if (block->barrier.line != place.line || strcmp(block->barrier.file, place.file) != 0) {
        fail("divergent barrier: it waits at %s:%d, %u other threads wait at %s:%d", place.file, place.line,
             block->at_barrier, block->barrier.file, block->barrier.line);
    }
    current->place = place;
    block->barrier_sum += predicate;
    if (++block->at_barrier == block->threads_alive) {
        release_barrier(block);
    } else {
        wait_for(Wait::Barrier);
    }
    return block->barrier_result;
}

// ---- exchanges ------------------------------------------------------------------------------------------------------

bool begin_exchange(const char* what, uint32_t lanes, bool whole) {
    Thread* me = current;
    Warp& warp = me->block->warp_of(me);
    const uint32_t mine = 1u << me->lane();
    if ((lanes & mine) == 0) fail("%s: the mask %08x does not hold the thread's own lane", what, lanes);
    me->exchange = what;
    me->lanes = lanes;
    warp.arrived |= mine;
    // Lanes that have ended are not waited for; one that ends makes the others look again.
    while ((lanes & warp.alive & ~warp.arrived) != 0) {
        wait_for(Wait::Lanes);
        if ((warp.arrived & mine) == 0) return false;
    }
    if (whole && warp.alive != 0xffffffff) fail("%s: only the lanes %08x of the warp are there", what, warp.alive);
    for_lanes(lanes & warp.alive, [&](unsigned lane) {
        const Thread& other = me->block->lanes_of(me)[lane];
        if (other.lanes != lanes || strcmp(other.exchange, what) != 0) {
            fail("divergent warp: %s of lanes %08x meets %s of lanes %08x in lane %u", what, lanes, other.exchange,
                 other.lanes, lane);
        }
    });
    return true;
}

void end_exchange() {
    Thread* me = current;
    Warp& warp = me->block->warp_of(me);
    const uint32_t done = me->lanes & warp.alive;
    warp.arrived &= ~done;
    for_lanes(done, [&](unsigned lane) { ready(&me->block->lanes_of(me)[lane]); });
}

// ---- memory ---------------------------------------------------------------------------------------------------------

void check_shared(const char* what, const void* pointer, size_t bytes) {
    const Workspace* workspace = workspace_of(current->block);
    const size_t dynamic_bytes = current->block->launch->shared_bytes;
    if (!workspace->dynamic.holds(pointer, bytes, dynamic_bytes) && !workspace->fixed.holds(pointer, bytes)) {
        const ptrdiff_t offset = static_cast<const unsigned char*>(pointer) - current->block->dynamic_shared;
        fail("%s: %zu bytes at %p are not in shared memory (dynamic: %zu bytes, this would be byte %td)", what, bytes,
             pointer, dynamic_bytes, offset);
    }
    if (reinterpret_cast<uintptr_t>(pointer) % bytes != 0) {
        fail("%s: %p is no multiple of %zu bytes", what, pointer, bytes);
    }
}

void check_global(const char* what, const void* pointer, size_t bytes) {
    const Launch* launch = current->block->launch;
    const uint64_t address = reinterpret_cast<uint64_t>(pointer);
    if (address % bytes != 0) fail("%s: %p is no multiple of %zu bytes", what, pointer, bytes);
    if (launch->is_memory != nullptr && !launch->is_memory(launch->host, address, bytes)) {
        fail("%s: %zu bytes at %p are not in device memory", what, bytes, pointer);
    }
}

// ---- blocks ---------------------------------------------------------------------------------------------------------

// Where every thread begins and ends.
[[noreturn]] static void thread_main() {
    Thread* me = current;
    Block* block = me->block;
    block->launch->kernel->call(block->launch->parameters);
    if (me->waits_at_the_end) pdl_wait();
    if (block->launch->chained && !me->waited) fail("it returned without pdl_wait, in a kernel that is chained");
    if (me->copies_pending > 0) fail("it returned while %u copies were under way", me->copies_pending);
    Warp& warp = block->warp_of(me);
    warp.alive &= ~(1u << me->lane());
    warp.ready &= ~(1u << me->lane());
    block->threads_alive--;
    for_lanes(warp.arrived, [&](unsigned lane) { ready(&block->lanes_of(me)[lane]); });
    if (block->threads_alive > 0 && block->at_barrier == block->threads_alive) release_barrier(block);
    run_another();
    __builtin_unreachable();
}

static void prepare_threads(Workspace* workspace) {
    Block* block = &workspace->block;
    memset(block->warps, 0, sizeof block->warps);
    block->threads_alive = block->threads_all;
    block->at_barrier = block->barrier_sum = 0;
    for (unsigned i = 0; i < block->threads_all; i++) {
        Thread* thread = &block->threads[i];
        const unsigned x = block->size.x, y = block->size.y;
        *thread = Thread{};
        thread->index = {i % x, i / x % y, i / (x * y)};
        thread->linear = i;
        thread->block = block;
        thread->copies = workspace->copies[i];
        block->warps[i / WARP_LANES].alive |= 1u << thread->lane();
        block->warps[i / WARP_LANES].ready |= 1u << thread->lane();
        // The stack of a thread that has just called `simt_switch`: six registers, where to go on, and no caller.
        memcpy(workspace->stacks[i], &STACK_END, sizeof STACK_END);
        uint64_t* top = reinterpret_cast<uint64_t*>(workspace->stacks[i] + STACK_BYTES);
        thread->stack_end = top;
        *--top = 0;
        *--top = reinterpret_cast<uint64_t>(&thread_main);
        for (int k = 0; k < 6; k++) *--top = 0;
        thread->stack_pointer = top;
    }
}

// Says which threads wait for what, when none can run.
static void report_deadlock(Block* block) {
    unsigned at_barrier = 0, in_exchange = 0;
    const Thread* lane = nullptr;
    for (unsigned i = 0; i < block->threads_all; i++) {
        at_barrier += block->threads[i].wait == Wait::Barrier;
        in_exchange += block->threads[i].wait == Wait::Lanes;
        if (block->threads[i].wait == Wait::Lanes && lane == nullptr) lane = &block->threads[i];
    }
    char barrier[160] = "", exchange[160] = "";
    if (at_barrier > 0) {
        snprintf(barrier, sizeof barrier, ", %u wait at __syncthreads (%s:%d)", at_barrier, block->barrier.file,
                 block->barrier.line);
    }
    if (lane != nullptr) {
        snprintf(exchange, sizeof exchange, ", %u wait for other lanes, thread %u among them at %s of lanes %08x",
                 in_exchange, lane->linear, lane->exchange, lane->lanes);
    }
    report(block, ": divergent barrier: of %u threads %u have ended%s%s", block->threads_all,
           block->threads_all - block->threads_alive, barrier, exchange);
}

// Runs the threads until all have ended or the launch has failed.
static void run_threads(Workspace* workspace) {
    Block* block = &workspace->block;
    const unsigned last_warp = (block->threads_all - 1) / WARP_LANES;
    while (block->threads_alive > 0 && !block->failed) {
        Thread* next = pick_after(block, block->launch->greedy ? 0 : last_warp);
        if (next != nullptr) {
            current = next;
            simt_switch(&workspace->scheduler, next->stack_pointer);
            current = &nobody;
            continue;
        }
        bool released = false;
        if (!block->predecessor_ended) {
            block->launch->predecessor(block->launch->host);
            block->predecessor_ended = true;
            for (unsigned i = 0; i < block->threads_all; i++) {
                if (block->threads[i].wait != Wait::Predecessor) continue;
                ready(&block->threads[i]);
                released = true;
            }
        }
        if (!released) report_deadlock(block);
    }
}

static void check_after_block(Workspace* workspace) {
    Block* block = &workspace->block;
    for (unsigned i = 0; i < block->threads_all; i++) {
        const bool whole = memcmp(workspace->stacks[i], &STACK_END, sizeof STACK_END) == 0;
        if (!whole) report(block, ": the stack of a thread is too small");
    }
    if (!workspace->dynamic.is_end_untouched(block->launch->shared_bytes)) {
        report(block, ": it wrote beyond its dynamic shared memory");
    }
}

static void run_grid(Workspace* workspace) {
    Block* block = &workspace->block;
    const dim3 grid = block->grid;
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    for (uint64_t i = 0; i < blocks && !block->failed; i++) {
        const uint64_t at = block->launch->greedy ? blocks - 1 - i : i;
        block->index = {unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / grid.x / grid.y)};
        workspace->dynamic.spoil(block->launch->shared_bytes);
        workspace->fixed.spoil();
        block->first_epoch = ++block->epoch;
        workspace->global.begin_block();
        prepare_threads(workspace);
        run_threads(workspace);
        if (!block->failed) check_after_block(workspace);
    }
}

// ---- workspaces -----------------------------------------------------------------------------------------------------

static std::mutex idle_lock;
static std::vector<Workspace*>& idle() {
    static std::vector<Workspace*>* list = new std::vector<Workspace*>();
    return *list;
}

// Memory full of zeros, whose pages are made when they are touched; null if there is none.
static void* zeros(size_t bytes) {
    void* memory =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
}

static Workspace* take_workspace() {
    {
        std::lock_guard<std::mutex> guard(idle_lock);
        if (!idle().empty()) {
            Workspace* workspace = idle().back();
            idle().pop_back();
            return workspace;
        }
    }
    void* memory = zeros(sizeof(Workspace));
    if (memory == nullptr) return nullptr;
    Workspace* workspace = new (memory) Workspace;
    workspace->fixed = StaticShared::of_this_thread(&current);
    workspace->dynamic_cells = static_cast<Cell*>(zeros(DynamicShared::BYTES_MAX * sizeof(Cell)));
    workspace->fixed_cells = static_cast<Cell*>(zeros(workspace->fixed.bytes() * sizeof(Cell)));
    return workspace->dynamic_cells != nullptr && workspace->fixed_cells != nullptr ? workspace : nullptr;
}

static void give_workspace(Workspace* workspace) {
    std::lock_guard<std::mutex> guard(idle_lock);
    idle().push_back(workspace);
}

}  // namespace simt

// ---- for the host ---------------------------------------------------------------------------------------------------

#define SIMT_EXPORT extern "C" __attribute__((visibility("default")))

SIMT_EXPORT const simt::Kernel* simt_kernels() { return simt::kernels; }

// 0, or 1 with what went wrong in `error`. The host has checked name, parameters and sizes.
SIMT_EXPORT int simt_launch(const simt::Launch* launch, char* error, size_t error_bytes) {
    using namespace simt;
    static const bool catching = catch_bad_accesses();
    Workspace* workspace = catching ? take_workspace() : nullptr;
    if (workspace == nullptr) {
        snprintf(error, error_bytes, "%s: no memory for the emulation", launch->kernel->name);
        return 1;
    }
    workspace->error = error;
    workspace->error_bytes = error_bytes;
    workspace->fixed = StaticShared::of_this_thread(&current);
    Block* block = &workspace->block;
    block->launch = launch;
    block->grid = {launch->grid[0], launch->grid[1], launch->grid[2]};
    block->size = {launch->block[0], launch->block[1], launch->block[2]};
    block->threads_all = block->size.x * block->size.y * block->size.z;
    block->dynamic_shared = workspace->dynamic.begin(launch->shared_bytes);
    const DynamicShared& dynamic = workspace->dynamic;
    const StaticShared& fixed = workspace->fixed;
    block->watched[0] = {reinterpret_cast<uintptr_t>(block->dynamic_shared), dynamic.rounded(launch->shared_bytes),
                         workspace->dynamic_cells};
    block->watched[1] = {fixed.begin(), fixed.bytes(), workspace->fixed_cells};
    block->global = &workspace->global;
    block->own_begin = reinterpret_cast<uintptr_t>(workspace);
    block->own_bytes = sizeof(Workspace);
    workspace->global.begin_launch(block->epoch);
    block->predecessor_ended = launch->predecessor == nullptr;
    block->failed = false;
    run_grid(workspace);
    // A kernel whose threads all wait for nothing must still come after its predecessor.
    if (!block->predecessor_ended && !block->failed) launch->predecessor(launch->host);
    const int failed = block->failed;
    give_workspace(workspace);
    return failed;
}
