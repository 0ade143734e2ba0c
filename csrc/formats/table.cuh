// The formats that kernels read, and the way from a format's number to its struct.
//
// A struct says how a format's lanes are filled, and what they mean:
//
//   NUMBER             VITRUM_FORMAT_*
//   UNIT_COLS          columns of what the lanes of a warp load at once, 16 bytes each
//   LANE_HEADER_BYTES  bytes of f16 scales and minima that belong to those 16: 0, 4, 8 or 16
//   MINIMA             whether headers have minima
//   SCALE_FACTOR       what scales are multiplied with where they meet what `matrix` gives
//   matrix(a, v, part) mma's A from a lane's 16 bytes; of formats with several blocks a unit, of block `part`
//   value(row, b, k)   value k of block b of a row
#pragma once
#include "bf16.cuh"
#include "q4_0.cuh"
#include "q4_1.cuh"
#include "q8_0.cuh"

// Calls `use` with the struct of a quantised format. The host has checked the number.
template <class Use>
__device__ __forceinline__ auto with_quantised(uint32_t format, const Use& use) {
    if (format == Q8_0::NUMBER) return use(Q8_0());
    if (format == Q4_0::NUMBER) return use(Q4_0());
    return use(Q4_1());
}

// The same with any format.
template <class Use>
__device__ __forceinline__ auto with_format(uint32_t format, const Use& use) {
    if (format == Bf16::NUMBER) return use(Bf16());
    return with_quantised(format, use);
}

// The same with a format that is read with rows of this kind.
template <uint32_t KIND, class Use>
__device__ __forceinline__ auto with_format_of_rows(uint32_t format, const Use& use) {
    if constexpr (KIND == VITRUM_ACTIVATIONS_BF16) return use(Bf16());
    else return with_quantised(format, use);
}
