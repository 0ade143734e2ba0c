// q4_0: src/formats/q4_0.rs. Integers as of all formats of 4 bits (nibbles.cuh); a lane's header is 8 bytes: d of
// rows g and g + 8 of the first block, those of the second. Values: d (q - 8).
#pragma once
#include "../common/math.cuh"
#include "nibbles.cuh"

struct Q4_0 {
    static constexpr uint32_t NUMBER = VITRUM_FORMAT_Q4_0;
    static constexpr uint32_t UNIT_COLS = NIBBLES_UNIT_COLS;
    static constexpr uint32_t LANE_HEADER_BYTES = 8;
    static constexpr bool MINIMA = false;
    static constexpr float SCALE_FACTOR = 1.0f / 16.0f;  // of `matrix`, which is 16 (q - 8)

    // mma's A from a lane's bytes of a unit: of block `part`. A nibble with its highest bit flipped is q - 8 in two's
    // complement; in the upper half of a byte, 16 times that.
    static __device__ __forceinline__ void matrix(uint32_t (&a)[4], const uint4& v, uint32_t part) {
        const NibbleWords w(v, part);
        a[0] = (w.even << 4 & 0xf0f0f0f0) ^ 0x80808080, a[1] = (w.odd << 4 & 0xf0f0f0f0) ^ 0x80808080;
        a[2] = (w.even & 0xf0f0f0f0) ^ 0x80808080, a[3] = (w.odd & 0xf0f0f0f0) ^ 0x80808080;
    }

    // Value k of a block.
    static __device__ __forceinline__ float value(const PackedRow& row, uint32_t block, uint32_t k) {
        return mul(row.header<Q4_0>(block / 2, block % 2), sub(nibble(row, block, k), 8.0f));
    }
};
