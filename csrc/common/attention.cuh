// The sizes of the attention kernel and its shared memory.
#pragma once
#include "../params.h"

static constexpr uint32_t PAGE = VITRUM_PAGE_TOKENS, CHUNK = VITRUM_KV_CHUNK_TOKENS;
static constexpr uint32_t TILE = 16;          // queries of a tile: mma's M
static constexpr uint32_t PASS_TILES = 4;
static constexpr uint32_t PASS_QUERIES = PASS_TILES * TILE;
static constexpr uint32_t WARPS = 8, THREADS = WARPS * 32;
static constexpr uint32_t CHUNK_PAGES = CHUNK / PAGE, WARP_POSITIONS = CHUNK / WARPS, WARP_PAGES = CHUNK_PAGES / WARPS;
// Words of two halves from one query's weights to the next's: 8 rows of 16 bytes then lie in different banks.
static constexpr uint32_t WEIGHTS_STRIDE = (CHUNK + 8) / 2;
static_assert(PAGE == 16, "a page is mma's K of values, and two of its N of keys");
static_assert(WARP_PAGES == 2, "a warp scores whole pages");
static_assert(PASS_QUERIES <= THREADS, "a thread per query");

// How the dimensions of a head are shared out over the warps when values are weighed, in tiles of 8: mma's N.
template <uint32_t DIM>
struct Split {
    static_assert(DIM % 16 == 0 && DIM <= 128, "whole tiles of mma's K, and of its N for at most 8 warps");
    static constexpr uint32_t WARP_TILES = DIM == 64 ? 1 : 2;
    static constexpr uint32_t WARP_DIMS = WARP_TILES * 8;
    static_assert(WARPS * WARP_DIMS >= DIM, "enough warps");
};

// Where piece `piece` (16 bytes, 8 halves) of row `row` lies, in halves: rows of PIECES pieces one after the other, the
// pieces of a row exchanged such that the same piece of 8 neighbouring rows, which a matrix load reads at once, lies in
// different banks (128 bytes, 8 pieces, are all banks).
template <uint32_t PIECES>
__host__ __device__ constexpr uint32_t swizzled(uint32_t row, uint32_t piece) {
    static_assert(PIECES % 2 == 0, "rows of whole 32 bytes");
    // Row r begins at piece r * PIECES, modulo 8: the same for rows 8 / gcd(8, PIECES) apart.
    const uint32_t turn = PIECES % 8 == 0 ? row % 8 : PIECES % 4 == 0 ? row / 2 % 4 : row / 4 % 2;
    return (row * PIECES + (piece ^ turn)) * 8;
}

// f16 values as their bits; in words of two where they are made here, the first one low.
template <uint32_t DIM>
struct alignas(128) Shared {
    uint16_t keys[CHUNK_PAGES][DIM * PAGE];    // (DIM, PAGE) each, swizzled
    uint16_t values[CHUNK_PAGES][PAGE * DIM];  // (PAGE, DIM) each, swizzled
    uint32_t queries[PASS_QUERIES * DIM / 2];  // (queries, DIM), swizzled
    union {
        uint32_t weights[PASS_QUERIES][WEIGHTS_STRIDE];
        float results[PASS_QUERIES * DIM];  // (rows, heads of the group, DIM)
    };
    float maxima[WARPS][PASS_QUERIES];
    float sums[WARPS][PASS_QUERIES];
    uint32_t seen[PASS_QUERIES];
    bool arrived_last;
};

template <uint32_t DIM>
constexpr bool HOST_KNOWS_SHARED =
    sizeof(Shared<DIM>) == VITRUM_ATTENTION_SHARED_FIXED + DIM * VITRUM_ATTENTION_SHARED_PER_DIM;
static_assert(HOST_KNOWS_SHARED<16> && HOST_KNOWS_SHARED<80> && HOST_KNOWS_SHARED<128>, "what params.h says");
