// e^x in one rounding after the other, so that its bits are the same on every device, the CPU's included.
#pragma once
#include "math.cuh"

// To 2 units in the last place. 0 below -87.7 and for NaN; the value at 88 above 88. The constants and the order of
// everything are those of src/kernels/cpu/math.rs.
__device__ __forceinline__ float exp_exactly(float x) {
    // e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln 2 / 2; ln 2 in two parts, so that r keeps its low bits.
    constexpr float LOG2_E = 1.44269504088896340736f, LN_2_HIGH = 0.6933594f, LN_2_LOW = -2.1219444e-4f;
    x = fminf(fmaxf(x, -88.0f), 88.0f);
    const float n = rintf(mul(x, LOG2_E));
    const float r = fma_once(n, -LN_2_LOW, fma_once(n, -LN_2_HIGH, x));
    float p = 0.0013926176f;
    p = fma_once(p, r, 0.008363173f);
    p = fma_once(p, r, 0.041666556f);
    p = fma_once(p, r, 0.16666578f);
    p = fma_once(p, r, 0.5f);
    const float tail = fma_once(mul(r, r), p, r);
    return mul(add(tail, 1.0f), float_of(static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23));
}
