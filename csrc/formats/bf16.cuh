// bf16: src/formats/bf16.rs. A unit is 16 columns, half a block; a lane's 16 bytes are a[0] .. a[3] of mma_bf16.
#pragma once
#include "../common/math.cuh"
#include "../common/weights.cuh"

struct Bf16 {
    static constexpr uint32_t NUMBER = VITRUM_FORMAT_BF16;
    static constexpr uint32_t UNIT_COLS = 16;
    static constexpr uint32_t LANE_HEADER_BYTES = 0;
    static constexpr bool MINIMA = false;
    static constexpr float SCALE_FACTOR = 1.0f;

    // mma's A from a lane's bytes of a unit.
    static __device__ __forceinline__ void matrix(uint32_t (&a)[4], const uint4& v, uint32_t) {
        a[0] = v.x, a[1] = v.y, a[2] = v.z, a[3] = v.w;
    }

    // Value k of a block of 32.
    static __device__ __forceinline__ float value(const PackedRow& row, uint32_t block, uint32_t k) {
        const unsigned char* pair = row.word<2>(block * 2 + k / 16, k % 16);
        return bf16_to_f32(reinterpret_cast<const uint16_t*>(pair)[k % 2]);
    }
};
