// Packed weight matrices: what lanes load is what they hold of mma's A, in streams of 16 bytes.
//
// A matrix (rows, cols), cols a multiple of 32, is padded with zeros to whole tiles of 16 rows. With g = lane / 4 and
// t = lane % 4, as for mma's A in common/ptx.cuh:
//
//   bf16   (row tiles, cols / 16, 32 lanes, 16 bytes): a[0] .. a[3] of mma_bf16
//   q8_0   (row tiles, cols / 32, 32 lanes, 16 bytes): a[0] .. a[3] of mma_s8
//   q4     (row tiles, pairs of blocks, 32 lanes, 16 bytes); of each of the pair's two blocks, 8 bytes: low nibbles are
//          a[0], high nibbles a[2]; low nibbles are a[1], high nibbles a[3]. cols / 32 is padded to even with zeros
//
// then, for q8_0 and q4_0, the scales, and for q4_1, scales and minima:
//
//   (row tiles, cols / 32, 16 rows) f16, from the next multiple of 16 bytes on; minima follow the scales likewise. The
//   rows of a tile come as 0, 8, 1, 9, ..., 7, 15: a lane's two, g and g + 8, are one word
//
// Values: q8_0 d q, q4_0 d (q - 8), q4_1 d q + m, with q as GGUF has it. The order of blocks is that of the columns.
#pragma once
#include "../params.h"

// Rows of a tile: mma's M.
static constexpr uint32_t TILE_ROWS = 16;

// Where row `row` of a tile stands among the tile's scales.
__host__ __device__ constexpr uint32_t scale_place(uint32_t row) { return row % 8 * 2 + row / 8; }

struct WeightLayout {
    uint32_t row_tiles;
    uint32_t blocks;      // of 32 columns
    uint32_t tile_bytes;  // from one tile of rows to the next, without scales
    uint64_t scales;      // offset in bytes
    uint64_t minima;      // as above
    uint64_t bytes;
};

__host__ __device__ constexpr WeightLayout weight_layout(uint32_t rows, uint32_t cols, uint32_t format) {
    const uint32_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, blocks = cols / VITRUM_QUANT_BLOCK;
    const bool q4 = format == VITRUM_FORMAT_Q4_0 || format == VITRUM_FORMAT_Q4_1;
    const bool bf16 = format == VITRUM_FORMAT_BF16;
    const uint32_t tile_bytes = bf16 ? blocks * 1024 : q4 ? (blocks + 1) / 2 * 512 : blocks * 512;
    const uint64_t values = uint64_t(tiles) * tile_bytes, column = uint64_t(tiles) * blocks * TILE_ROWS * 2;
    const uint64_t scales = bf16 ? 0 : column, minima = format == VITRUM_FORMAT_Q4_1 ? column : 0;
    return {tiles, blocks, tile_bytes, values, values + scales, values + scales + minima};
}
