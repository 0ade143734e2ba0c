// Arithmetic of single values.
//
// A compiler may fuse a product and a sum into one operation, or not, from one variant of a kernel to the next. Where
// the bits of a result must not depend on the variant, sums and products are these functions: each one rounding.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
__device__ __forceinline__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float mul(float a, float b) { return __fmul_rn(a, b); }
#else
__device__ inline float add(float a, float b) { return a + b; }
__device__ inline float mul(float a, float b) { return a * b; }
#endif

__device__ __forceinline__ float sub(float a, float b) { return add(a, -b); }

// a * b + c, rounded once
__device__ __forceinline__ float fma_once(float a, float b, float c) { return fmaf(a, b, c); }

__device__ __forceinline__ uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

__device__ __forceinline__ float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// To the nearest, ties to even; a NaN stays one.
__device__ __forceinline__ uint16_t f32_to_bf16(float value) {
    const uint32_t bits = bits_of(value);
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    return static_cast<uint16_t>(nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

__device__ __forceinline__ float bf16_to_f32(uint16_t bits) { return float_of(uint32_t(bits) << 16); }

// x / (1 + e^-x)
__device__ __forceinline__ float silu(float x) { return x / add(1.0f, expf(-x)); }
