// Integer and float intrinsics. Where the device rounds less well than the host, the host's better value stands.
#pragma once
#include <limits>
#include <type_traits>
#include <utility>

namespace simt {
template <class To, class From>
inline To bits_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
}  // namespace simt

// CUDA's overloads take mixed types.
template <class A, class B>
inline constexpr std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    return T(b) < T(a) ? T(b) : T(a);
}

template <class A, class B>
inline constexpr std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    return T(a) < T(b) ? T(b) : T(a);
}

// ---- bits -----------------------------------------------------------------------------------------------------------

inline uint32_t __float_as_uint(float v) { return simt::bits_as<uint32_t>(v); }
inline int32_t __float_as_int(float v) { return simt::bits_as<int32_t>(v); }
inline float __uint_as_float(uint32_t v) { return simt::bits_as<float>(v); }
inline float __int_as_float(int32_t v) { return simt::bits_as<float>(v); }

inline int __popc(uint32_t v) { return __builtin_popcount(v); }
inline int __popcll(uint64_t v) { return __builtin_popcountll(v); }
inline int __clz(int32_t v) { return v == 0 ? 32 : __builtin_clz(uint32_t(v)); }
inline int __clzll(int64_t v) { return v == 0 ? 64 : __builtin_clzll(uint64_t(v)); }
inline int __ffs(int32_t v) { return __builtin_ffs(v); }

inline uint32_t __brev(uint32_t v) {
    uint32_t r = 0;
    for (int i = 0; i < 32; i++) r |= (v >> i & 1) << (31 - i);
    return r;
}

inline uint32_t __umulhi(uint32_t a, uint32_t b) { return uint32_t(uint64_t(a) * b >> 32); }
inline uint64_t __umul64hi(uint64_t a, uint64_t b) { return uint64_t((unsigned __int128)a * b >> 64); }

// Byte i of the result is the byte of {b, a} that nibble i of the selector names; its bit 3 asks for the sign alone.
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t both = uint64_t(b) << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++) {
        const uint32_t choice = selector >> (4 * i) & 15;
        uint32_t byte = uint32_t(both >> (8 * (choice & 7))) & 255;
        if (choice & 8) byte = byte & 128 ? 255 : 0;
        r |= byte << (8 * i);
    }
    return r;
}

inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t shift) {
    return uint32_t((uint64_t(high) << 32 | low) >> (shift & 31));
}

inline uint32_t __funnelshift_l(uint32_t low, uint32_t high, uint32_t shift) {
    return uint32_t((uint64_t(high) << 32 | low) << (shift & 31) >> 32);
}

// c + the four products of signed bytes.
inline int32_t __dp4a(int32_t a, int32_t b, int32_t c) {
    for (int i = 0; i < 4; i++) c += int32_t(int8_t(a >> (8 * i))) * int32_t(int8_t(b >> (8 * i)));
    return c;
}

// Differences of the four bytes, each modulo 256.
inline uint32_t __vsub4(uint32_t a, uint32_t b) {
    uint32_t r = 0;
    for (int i = 0; i < 32; i += 8) r |= (((a >> i) - (b >> i)) & 255) << i;
    return r;
}

// ---- floats ---------------------------------------------------------------------------------------------------------

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fsub_rn(float x, float y) { return x - y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
// NaN becomes 0, as on the device.
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

// ---- conversions: the device clamps to the range of the result, and NaN becomes 0 -----------------------------------

namespace simt {
template <class To>
inline To clamped(double v) {
    if (v != v) return 0;
    using Limits = std::numeric_limits<To>;
    return v <= double(Limits::min()) ? Limits::min() : v >= double(Limits::max()) ? Limits::max() : To(v);
}
}  // namespace simt

inline int32_t __float2int_rn(float v) { return simt::clamped<int32_t>(nearbyint(double(v))); }
inline int32_t __float2int_rz(float v) { return simt::clamped<int32_t>(trunc(double(v))); }
inline int32_t __float2int_rd(float v) { return simt::clamped<int32_t>(floor(double(v))); }
inline int32_t __float2int_ru(float v) { return simt::clamped<int32_t>(ceil(double(v))); }
inline uint32_t __float2uint_rn(float v) { return simt::clamped<uint32_t>(nearbyint(double(v))); }
inline uint32_t __float2uint_rz(float v) { return simt::clamped<uint32_t>(trunc(double(v))); }
inline float __int2float_rn(int32_t v) { return float(v); }
inline float __uint2float_rn(uint32_t v) { return float(v); }
inline float __ull2float_rn(uint64_t v) { return float(v); }

namespace simt {

inline float bf16_to_float(uint16_t v) { return bits_as<float>(uint32_t(v) << 16); }

inline uint16_t float_to_bf16(float v) {
    if (v != v) return 0x7fff;
    const uint32_t u = bits_as<uint32_t>(v);
    return uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

inline float half_to_float(uint16_t v) {
    const uint32_t sign = uint32_t(v & 0x8000) << 16, exponent = v >> 10 & 31, fraction = v & 0x3ff;
    if (exponent == 31) return bits_as<float>(sign | 0x7f800000u | fraction << 13);
    if (exponent != 0) return bits_as<float>(sign | (exponent + 112) << 23 | fraction << 13);
    const float subnormal = float(fraction) * 0x1p-24f;
    return sign ? -subnormal : subnormal;
}

// To the nearest, ties to even.
inline uint16_t float_to_half(float v) {
    const uint32_t u = bits_as<uint32_t>(v);
    const uint16_t sign = uint16_t(u >> 16 & 0x8000);
    const uint32_t magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7fff;
    if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and more round to infinity
    if (magnitude < 0x38800000) {                       // below 2^-14: steps of 2^-24
        return sign | uint16_t(nearbyintf(bits_as<float>(magnitude) * 0x1p24f));
    }
    const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return sign | uint16_t((rounded - 0x38000000) >> 13);
}

}  // namespace simt
