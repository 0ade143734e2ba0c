// q8_0: src/formats/q8_0.rs. A unit is a block; a lane's 16 bytes are a[0] .. a[3] of mma_s8, its header a word: d of
// row g, d of row g + 8. Values: d q.
#pragma once
#include "../common/math.cuh"
#include "../common/weights.cuh"

struct Q8_0 {
    static constexpr uint32_t NUMBER = VITRUM_FORMAT_Q8_0;
    static constexpr uint32_t UNIT_COLS = 32;
    static constexpr uint32_t LANE_HEADER_BYTES = 4;
    static constexpr bool MINIMA = false;
    static constexpr float SCALE_FACTOR = 1.0f;

    // mma's A from a lane's bytes of a unit.
    static __device__ __forceinline__ void matrix(uint32_t (&a)[4], const uint4& v, uint32_t) {
        a[0] = v.x, a[1] = v.y, a[2] = v.z, a[3] = v.w;
    }

    // Value k of a block.
    static __device__ __forceinline__ float value(const PackedRow& row, uint32_t block, uint32_t k) {
        const float q = static_cast<float>(static_cast<int8_t>(row.word<4>(block, k)[k % 4]));
        return mul(row.header<Q8_0>(block, 0), q);
    }
};
