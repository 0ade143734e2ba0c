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
// then, but for bf16, the headers: the f16 scales (and minima) that a lane holds, of rows g and g + 8 in one word:
//
//   q8_0   (row tiles, cols / 32, 8 g, 4 bytes): d of row g, d of row g + 8
//   q4_0   (row tiles, pairs of blocks, 8 g, 8 bytes): those of the first block, those of the second
//   q4_1   (row tiles, pairs of blocks, 8 g, 16 bytes): the same, then the minima in the same order
//
// Values: q8_0 d q, q4_0 d (q - 8), q4_1 d q + m, with q as GGUF has it. The order of blocks is that of the columns.
#pragma once
#include "../params.h"

// Rows of a tile: mma's M.
static constexpr uint32_t TILE_ROWS = 16;

struct WeightLayout {
    uint32_t row_tiles;
    uint32_t blocks;        // of 32 columns
    uint32_t tile_bytes;    // from one tile of rows to the next, without headers
    uint32_t header_bytes;  // the same, of the headers
    uint64_t headers;       // offset in bytes
    uint64_t bytes;
};

__host__ __device__ constexpr WeightLayout weight_layout(uint32_t rows, uint32_t cols, uint32_t format) {
    const uint32_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, blocks = cols / VITRUM_QUANT_BLOCK;
    const bool q4_0 = format == VITRUM_FORMAT_Q4_0, q4_1 = format == VITRUM_FORMAT_Q4_1;
    const uint32_t units = q4_0 || q4_1 ? (blocks + 1) / 2 : blocks;
    const uint32_t tile_bytes = units * (format == VITRUM_FORMAT_BF16 ? 1024 : 512);
    const uint32_t header_bytes = units * 8 * (format == VITRUM_FORMAT_BF16 ? 0 : q4_1 ? 16 : q4_0 ? 8 : 4);
    const uint64_t headers = uint64_t(tiles) * tile_bytes;
    return {tiles, blocks, tile_bytes, header_bytes, headers, headers + uint64_t(tiles) * header_bytes};
}

// Where the f16 scale of a block of columns of a row is, in bytes; q4_1's minimum is 8 bytes behind it.
__host__ __device__ constexpr uint64_t scale_offset(
    const WeightLayout& layout, uint32_t format, uint32_t row, uint32_t block) {
    const uint32_t tile = row / TILE_ROWS, g = row % 8, second_row = row % TILE_ROWS / 8 * 2;
    const uint64_t tile_headers = layout.headers + uint64_t(tile) * layout.header_bytes;
    if (format == VITRUM_FORMAT_Q8_0) return tile_headers + (uint64_t(block) * 8 + g) * 4 + second_row;
    const uint32_t lane_bytes = format == VITRUM_FORMAT_Q4_1 ? 16 : 8;
    return tile_headers + (uint64_t(block / 2) * 8 + g) * lane_bytes + block % 2 * 4 + second_row;
}
