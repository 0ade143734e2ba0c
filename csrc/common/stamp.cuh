// When a kernel began and ended, by the device's own clock, if the launch asks for it.
//
// A kernel begins when its first block has what it waits for, and ends with its last block: so both cells take a
// maximum, the first one of the complement, and both may start from zero.
#pragma once
#include "../params.h"
#include "ptx.cuh"

__device__ __forceinline__ void stamp_maximum(uint64_t* cell, uint64_t ns) {
    atomicMax(reinterpret_cast<unsigned long long*>(cell), static_cast<unsigned long long>(ns));
}

// Every block calls it, behind pdl_wait().
__device__ __forceinline__ void stamp_begin(const LaunchInfo& launch) {
    if (launch.stamp != nullptr && threadIdx.x == 0) stamp_maximum(launch.stamp, ~global_timer_ns());
}

// Every thread of a block calls it, as the last thing it does.
__device__ __forceinline__ void stamp_end(const LaunchInfo& launch) {
    if (launch.stamp == nullptr) return;
    __syncthreads();
    if (threadIdx.x == 0) stamp_maximum(launch.stamp + 1, global_timer_ns());
}
