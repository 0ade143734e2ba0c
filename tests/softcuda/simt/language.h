// The keywords of CUDA C++, vector types, and the macros of csrc/common/ptx.cuh.
#pragma once
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#define VITRUM_DEVICE_CODE 1  // parameters hold typed pointers

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// Thread-local and without a value in the image: so the runtime finds all of them, and spoils them before a block.
#define __shared__ static thread_local

// The build script preprocesses each file once with SIMT_LIST_KERNELS: the names of kernels stand after the word.
#if defined(SIMT_LIST_KERNELS)
#define VITRUM_KERNEL simt_kernel_begins
#else
#define VITRUM_KERNEL extern "C" void
#endif

#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(simt::current->block->dynamic_shared)

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

#define SIMT_VECTORS(scalar, name, bytes)                                                            \
    struct alignas(2 * bytes) name##2 {                                                              \
        scalar x, y;                                                                                 \
    };                                                                                               \
    struct name##3 {                                                                                 \
        scalar x, y, z;                                                                              \
    };                                                                                               \
    struct alignas(bytes < 8 ? 4 * bytes : 16) name##4 {                                             \
        scalar x, y, z, w;                                                                           \
    };                                                                                               \
    inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                             \
    inline name##3 make_##name##3(scalar x, scalar y, scalar z) { return {x, y, z}; }                \
    inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }

SIMT_VECTORS(int8_t, char, 1)
SIMT_VECTORS(uint8_t, uchar, 1)
SIMT_VECTORS(int16_t, short, 2)
SIMT_VECTORS(uint16_t, ushort, 2)
SIMT_VECTORS(int32_t, int, 4)
SIMT_VECTORS(uint32_t, uint, 4)
SIMT_VECTORS(float, float, 4)
SIMT_VECTORS(long long, longlong, 8)
SIMT_VECTORS(unsigned long long, ulonglong, 8)
SIMT_VECTORS(double, double, 8)
#undef SIMT_VECTORS
