// Packed weight matrices: what lanes load is what they hold of mma's A, in streams of 16 bytes.
//
// A matrix (rows, cols), cols a multiple of 32, is padded with zeros to whole tiles of 16 rows, and to whole units of
// columns: what the lanes of a warp load of a tile at once. With g = lane / 4 and t = lane % 4, as for mma's A in
// common/ptx.cuh:
//
//   values   (row tiles, units, 32 lanes, 16 bytes): a[0] .. a[3], in four words or, of 4 bits, in two
//   headers  (row tiles, units, 8 g, lane header bytes): the f16 scales (and minima) that a lane holds, of rows g and
//            g + 8 in one word. First the scales of the unit's blocks, then their minima
//
// How many columns a unit has, what a lane's bytes are and what they mean is the format's: csrc/formats. The order of
// blocks is that of the columns.
#pragma once
#include "../params.h"
#include "ptx.cuh"

// Rows of a tile: mma's M.
static constexpr uint32_t TILE_ROWS = 16;
// Values of a tile in a unit: 16 bytes a lane.
static constexpr uint32_t TILE_UNIT_BYTES = 32 * 16;

// A step of columns: whole units and whole blocks of 32.
template <class Format>
struct Step {
    static constexpr uint32_t BLOCKS =
        Format::UNIT_COLS > VITRUM_QUANT_BLOCK ? Format::UNIT_COLS / VITRUM_QUANT_BLOCK : 1;
    static constexpr uint32_t UNITS =
        Format::UNIT_COLS < VITRUM_QUANT_BLOCK ? VITRUM_QUANT_BLOCK / Format::UNIT_COLS : 1;
    static_assert(BLOCKS * VITRUM_QUANT_BLOCK == UNITS * Format::UNIT_COLS, "whole units and whole blocks");
};

struct WeightLayout {
    uint32_t row_tiles;
    uint32_t blocks;        // of 32 columns
    uint32_t tile_bytes;    // from one tile of rows to the next, without headers
    uint32_t header_bytes;  // the same, of the headers
    uint64_t headers;       // offset in bytes
    uint64_t bytes;
};

template <class Format>
__host__ __device__ constexpr WeightLayout weight_layout(uint32_t rows, uint32_t cols) {
    const uint32_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, blocks = cols / VITRUM_QUANT_BLOCK;
    const uint32_t units = (blocks + Step<Format>::BLOCKS - 1) / Step<Format>::BLOCKS * Step<Format>::UNITS;
    const uint32_t tile_bytes = units * TILE_UNIT_BYTES;
    const uint32_t header_bytes = units * 8 * Format::LANE_HEADER_BYTES;
    const uint64_t headers = uint64_t(tiles) * tile_bytes;
    return {tiles, blocks, tile_bytes, header_bytes, headers, headers + uint64_t(tiles) * header_bytes};
}

// One row of a packed matrix, read value by value: every 16th of the lanes' words.
struct PackedRow {
    const unsigned char* data;
    WeightLayout layout;
    uint32_t tile, row;  // the row of that tile

    // The bytes of a unit from where this lane's begin: of the lanes that have the row, lane t.
    __device__ const unsigned char* lane(uint32_t unit, uint32_t t) const {
        return data + size_t(tile) * layout.tile_bytes + unit * TILE_UNIT_BYTES + (row % 8 * 4 + t) * 16;
    }

    // A word of WORD_COLS neighbours of a unit's columns: four lanes have 4 * WORD_COLS of them; a[0] and a[1] are rows
    // r and r + 8, a[2] and a[3] the same for the next 4 * WORD_COLS.
    template <uint32_t WORD_COLS>
    __device__ const unsigned char* word(uint32_t unit, uint32_t col) const {
        const uint32_t w = col / (4 * WORD_COLS) * 2 + row / 8;
        return lane(unit, col % (4 * WORD_COLS) / WORD_COLS) + w * 4;
    }

    // The i-th f16 of a unit.
    template <class Format>
    __device__ float header(uint32_t unit, uint32_t i) const {
        const uint64_t tile_headers = layout.headers + uint64_t(tile) * layout.header_bytes;
        const uint64_t at = tile_headers + (uint64_t(unit) * 8 + row % 8) * Format::LANE_HEADER_BYTES + i * 4;
        float value, none;
        f16_pair_to_f32(*reinterpret_cast<const uint16_t*>(data + at + row / 8 * 2), value, none);
        return value;
    }
};
