// In place of CUDA's cuda_fp16.h: the type and its conversions.
#pragma once

struct __half {
    uint16_t bits;
    __half() = default;
    __half(float v) : bits(simt::float_to_half(v)) {}
    operator float() const { return simt::half_to_float(bits); }
};

struct alignas(4) __half2 {
    __half x, y;
};

using half = __half;
using half2 = __half2;

inline float __half2float(__half v) { return v; }
inline __half __float2half(float v) { return v; }
inline __half __float2half_rn(float v) { return v; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }
inline float __low2float(__half2 v) { return v.x; }
inline float __high2float(__half2 v) { return v.y; }
inline uint16_t __half_as_ushort(__half v) { return v.bits; }
inline __half __ushort_as_half(uint16_t v) { return simt::bits_as<__half>(v); }
