// Reads the device's clock into the first cell of a stamp: src/device/cuda/clock.rs finds the host's time of it.
#include "common/ptx.cuh"
#include "params.h"

// One block of one thread. Launched alone, after all that is in the stream: there is no kernel to wait for.
VITRUM_KERNEL __launch_bounds__(1) device_clock(const __grid_constant__ LaunchInfo launch) {
    launch.stamp[0] = ~global_timer_ns();
}
