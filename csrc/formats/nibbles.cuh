// What formats of 4-bit integers share. A unit is a pair of blocks; of each of the two, a lane has 8 bytes: the low
// nibbles of the first word are a[0] of mma_s8, the high ones a[2]; the low nibbles of the second a[1], the high ones
// a[3]. cols / 32 is padded to even with zeros.
#pragma once
#include "../common/weights.cuh"

static constexpr uint32_t NIBBLES_UNIT_COLS = 64;

// Of a lane's bytes of a unit the two words of block `part`.
struct NibbleWords {
    uint32_t even, odd;

    __device__ __forceinline__ NibbleWords(const uint4& v, uint32_t part)
        : even(part == 0 ? v.x : v.z), odd(part == 0 ? v.y : v.w) {}
};

// Integer k of a block of a row.
__device__ __forceinline__ float nibble(const PackedRow& row, uint32_t block, uint32_t k) {
    const unsigned char pair = row.lane(block / 2, k % 16 / 4)[block % 2 * 8 + row.row / 8 * 4 + k % 4];
    return static_cast<float>(k < 16 ? pair & 15 : pair >> 4);
}
