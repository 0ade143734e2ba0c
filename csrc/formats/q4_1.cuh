// q4_1: src/formats/q4_1.rs. Integers as of all formats of 4 bits (nibbles.cuh); a lane's header is 16 bytes: d of
// rows g and g + 8 of the first block, those of the second, then the minima in the same order. Values: d q + m.
#pragma once
#include "../common/math.cuh"
#include "nibbles.cuh"

struct Q4_1 {
    static constexpr uint32_t NUMBER = VITRUM_FORMAT_Q4_1;
    static constexpr uint32_t UNIT_COLS = NIBBLES_UNIT_COLS;
    static constexpr uint32_t LANE_HEADER_BYTES = 16;
    static constexpr bool MINIMA = true;
    static constexpr float SCALE_FACTOR = 1.0f;

    // mma's A from a lane's bytes of a unit: of block `part`.
    static __device__ __forceinline__ void matrix(uint32_t (&a)[4], const uint4& v, uint32_t part) {
        const NibbleWords w(v, part);
        a[0] = w.even & 0x0f0f0f0f, a[1] = w.odd & 0x0f0f0f0f;
        a[2] = w.even >> 4 & 0x0f0f0f0f, a[3] = w.odd >> 4 & 0x0f0f0f0f;
    }

    // Value k of a block.
    static __device__ __forceinline__ float value(const PackedRow& row, uint32_t block, uint32_t k) {
        const float d = row.header<Q4_1>(block / 2, block % 2), m = row.header<Q4_1>(block / 2, 2 + block % 2);
        return add(mul(d, nibble(row, block, k)), m);
    }
};
