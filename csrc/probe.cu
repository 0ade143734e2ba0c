// What it costs to use the device: a node that does nothing, and how fine the device's clock is.
#include "common/ptx.cuh"
#include "common/stamp.cuh"
#include "params.h"

// Any grid of blocks of up to 256 threads.
VITRUM_KERNEL __launch_bounds__(256) probe_node(
    const __grid_constant__ NodeProbeParams p, const __grid_constant__ LaunchInfo launch) {
    if (p.entry != nullptr && threadIdx.x == 0) stamp_maximum(p.entry, ~global_timer_ns());
    pdl_trigger();
    pdl_wait();
    stamp_begin(launch);
    if (p.spin_ns > 0 && threadIdx.x == 0) {
        const uint64_t begin_ns = global_timer_ns();
        while (global_timer_ns() - begin_ns < p.spin_ns) {
        }
    }
    stamp_end(launch);
}

// One block of one thread. Launched alone, after all that is in the stream.
VITRUM_KERNEL __launch_bounds__(1) probe_clock(
    const __grid_constant__ ClockStepParams p, const __grid_constant__ LaunchInfo launch) {
    stamp_begin(launch);
    const uint64_t first_ns = global_timer_ns();
    uint64_t last_ns = first_ns, smallest_ns = 0, steps = 0;
    for (uint32_t read = 0; read < p.reads; read++) {
        const uint64_t now_ns = global_timer_ns();
        if (now_ns == last_ns) continue;
        const uint64_t step_ns = now_ns - last_ns;
        if (steps == 0 || step_ns < smallest_ns) smallest_ns = step_ns;
        steps++;
        last_ns = now_ns;
    }
    p.out[0] = smallest_ns;
    p.out[1] = steps;
    p.out[2] = last_ns - first_ns;
    stamp_end(launch);
}
