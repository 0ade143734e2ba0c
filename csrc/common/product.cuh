// The product of packed weights and prepared rows: what every linear layer's time goes into.
//
// A block of 8 warps makes 32 outputs (two tiles of mma's 16) of up to T tokens (T / 8 groups of mma's 8). The columns
// are cut into 8 slices, one a warp, and the warps' sums are added in the order of the slices. The cuts depend on the
// weight alone, and a token's column of mma is computed alike wherever it stands: so the bits of a result depend on the
// row and the weight, never on the batch or on T.
//
// Weights are read once per T tokens, 16 bytes a lane, several units ahead of their use; the first ones before the
// kernel waits for the one before it. Rows come from the caches.
#pragma once
#include "math.cuh"
#include "ptx.cuh"
#include "rows.cuh"
#include "weights.cuh"

static constexpr uint32_t BLOCK_WARPS = 8;
static constexpr uint32_t BLOCK_THREADS = 32 * BLOCK_WARPS;
static constexpr uint32_t BLOCK_OUTPUTS = 32;
static constexpr uint32_t BLOCK_TILES = BLOCK_OUTPUTS / TILE_ROWS;
static constexpr uint32_t GROUP_TOKENS = 8;  // mma's N
static_assert(BLOCK_OUTPUTS == VITRUM_QUANT_BLOCK, "a block's outputs are one block of the rows that it leaves");
static_assert(GROUP_TOKENS == BLOCK_WARPS, "in the end a warp has one token of each group");

// Integer sums start here: their bits are then those of the float 1.5 * 2^23 + sum, as long as |sum| < 2^22.
static constexpr int32_t SUM_START = 0x4b400000;
static constexpr float SUM_START_F32 = 12582912.0f;
static_assert(VITRUM_QUANT_BLOCK * 128 * 128 < 1u << 22, "the sum of a block of products of bytes");

// A true size, or a row's place, of the step. The host writes them before the first kernel of the chain starts and not
// again before the last one ends, so they may be read before pdl_wait(). Volatile: not from a cache that the host's copy
// passed by.
__device__ __forceinline__ uint32_t step_word(const uint32_t* word) {
    return *static_cast<const volatile uint32_t*>(word);
}

// ---- weights --------------------------------------------------------------------------------------------------------

// How a lane reads two tiles of a weight matrix: units of one block of columns, or of q4's pair of blocks.
template <uint32_t FORMAT>
struct TileStream {
    static constexpr bool BF16 = FORMAT == VITRUM_FORMAT_BF16;
    static constexpr bool Q4 = FORMAT == VITRUM_FORMAT_Q4_0 || FORMAT == VITRUM_FORMAT_Q4_1;
    static constexpr bool MINIMA = FORMAT == VITRUM_FORMAT_Q4_1;
    static constexpr uint32_t UNIT_BLOCKS = Q4 ? 2 : 1;
    static constexpr uint32_t UNIT_VECTORS = BF16 ? 2 : 1;
    static constexpr uint32_t UNIT_BYTES = UNIT_VECTORS * 512;
    static constexpr uint32_t HEADER_BYTES = BF16 ? 0 : MINIMA ? 16 : Q4 ? 8 : 4;  // a lane's, of a unit

    struct Unit {
        uint4 values[BLOCK_TILES][UNIT_VECTORS];
        uint4 headers[BLOCK_TILES];  // f16 of rows g and g + 8: scales of one block or two, then q4_1's minima
    };

    const unsigned char* values[BLOCK_TILES];
    const unsigned char* headers[BLOCK_TILES];
    uint32_t first, last;  // units of this warp's slice

    // At the first unit of the slice.
    __device__ TileStream(const WeightRef& weight, uint32_t first_output) {
        const WeightLayout layout = weight_layout(weight.rows, weight.cols, FORMAT);
        const unsigned char* data = static_cast<const unsigned char*>(weight.data);
        const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const uint32_t units = layout.tile_bytes / UNIT_BYTES;
        first = units * warp / BLOCK_WARPS;
        last = units * (warp + 1) / BLOCK_WARPS;
#pragma unroll
        for (uint32_t i = 0; i < BLOCK_TILES; i++) {
            // Beyond the last tile: the last one again, whose outputs nobody takes.
            const uint64_t tile = min(first_output / TILE_ROWS + i, layout.row_tiles - 1);
            values[i] = data + tile * layout.tile_bytes + first * UNIT_BYTES + lane * 16;
            headers[i] = data + layout.headers + tile * layout.header_bytes + (first * 8 + lane / 4) * HEADER_BYTES;
        }
    }

    // The unit `ahead` of where the stream is.
    __device__ __forceinline__ void load(Unit& unit, uint32_t ahead) const {
#pragma unroll
        for (uint32_t i = 0; i < BLOCK_TILES; i++) {
#pragma unroll
            for (uint32_t v = 0; v < UNIT_VECTORS; v++) {
                unit.values[i][v] = load_stream(values[i] + ahead * UNIT_BYTES + v * 512);
            }
            const unsigned char* header = headers[i] + ahead * 8 * HEADER_BYTES;
            if (HEADER_BYTES == 16) unit.headers[i] = load_stream(header);
            if (HEADER_BYTES == 8) {
                const uint2 pair = load_stream_pair(header);
                unit.headers[i].x = pair.x, unit.headers[i].y = pair.y;
            }
            if (HEADER_BYTES == 4) unit.headers[i].x = load_stream_word(header);
        }
    }

    __device__ __forceinline__ void advance(uint32_t units) {
#pragma unroll
        for (uint32_t i = 0; i < BLOCK_TILES; i++) {
            values[i] += units * UNIT_BYTES;
            headers[i] += units * 8 * HEADER_BYTES;
        }
    }

    // mma's A: of bf16 the unit's 16 columns `part`, else its block `part`. q4_0 is 16 (q - 8).
    static __device__ __forceinline__ void matrix(uint32_t (&a)[4], const Unit& unit, uint32_t tile, uint32_t part) {
        const uint4& v = unit.values[tile][Q4 ? 0 : part];
        if (!Q4) {
            a[0] = v.x, a[1] = v.y, a[2] = v.z, a[3] = v.w;
            return;
        }
        const uint32_t even = part == 0 ? v.x : v.z, odd = part == 0 ? v.y : v.w;
        if (MINIMA) {
            a[0] = even & 0x0f0f0f0f, a[1] = odd & 0x0f0f0f0f;
            a[2] = even >> 4 & 0x0f0f0f0f, a[3] = odd >> 4 & 0x0f0f0f0f;
        } else {
            a[0] = (even << 4 & 0xf0f0f0f0) ^ 0x80808080, a[1] = (odd << 4 & 0xf0f0f0f0) ^ 0x80808080;
            a[2] = (even & 0xf0f0f0f0) ^ 0x80808080, a[3] = (odd & 0xf0f0f0f0) ^ 0x80808080;
        }
    }
};

// ---- rows -----------------------------------------------------------------------------------------------------------

// Where a lane reads the rows of a block's tokens: with g = lane / 4 and t = lane % 4, of each group of tokens, its part
// of the values of token g, and the scales of tokens 2t and 2t + 1.
template <uint32_t KIND, uint32_t T>
struct TokenRows {
    static constexpr uint32_t GROUPS = T / GROUP_TOKENS;
    static constexpr bool BF16 = KIND == VITRUM_ACTIVATIONS_BF16;
    static constexpr uint32_t PLANES = KIND == VITRUM_ACTIVATIONS_INT8X2 ? 2 : 1;
    static constexpr uint32_t BLOCK_BYTES = KIND == VITRUM_ACTIVATIONS_INT8 ? 32 : 64;
    static_assert(T % GROUP_TOKENS == 0, "whole groups");

    // One block of columns.
    struct Block {
        uint4 values[GROUPS];  // int8: x and y alone
        float scales[GROUPS][2];
        float sums[GROUPS][2];
    };

    const unsigned char* rows;
    RowsLayout layout;
    uint32_t values[GROUPS];     // offsets from `rows`: all of them are less than 4 GiB
    uint32_t scales[GROUPS][2];  // likewise

    // `row_of` gives the row of the block's token i, for any i < T. Beyond the last token: any row that exists.
    template <class RowOf>
    __device__ void locate(const void* prepared, uint32_t cols, const RowOf& row_of) {
        const uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
        rows = static_cast<const unsigned char*>(prepared);
        layout = rows_layout(cols, KIND);
#pragma unroll
        for (uint32_t n = 0; n < GROUPS; n++) {
            values[n] = row_of(n * GROUP_TOKENS + g) * layout.row_bytes + t * (BLOCK_BYTES / 4);
            if (BF16) continue;
            scales[n][0] = row_of(n * GROUP_TOKENS + 2 * t) * layout.row_bytes + layout.scales;
            scales[n][1] = row_of(n * GROUP_TOKENS + 2 * t + 1) * layout.row_bytes + layout.scales;
        }
    }

    template <bool SUMS>
    __device__ __forceinline__ void load(Block& to, uint32_t block) const {
        const uint32_t sums = layout.sums - layout.scales;
#pragma unroll
        for (uint32_t n = 0; n < GROUPS; n++) {
            const unsigned char* value = rows + (values[n] + block * BLOCK_BYTES);
            if (KIND == VITRUM_ACTIVATIONS_INT8) {
                const uint2 v = *reinterpret_cast<const uint2*>(value);
                to.values[n].x = v.x, to.values[n].y = v.y;
            } else {
                to.values[n] = *reinterpret_cast<const uint4*>(value);
            }
#pragma unroll
            for (uint32_t i = 0; i < 2 && !BF16; i++) {
                const uint32_t scale = scales[n][i] + block * uint32_t(sizeof(float));
                to.scales[n][i] = *reinterpret_cast<const float*>(rows + scale);
                if (SUMS) to.sums[n][i] = *reinterpret_cast<const float*>(rows + (scale + sums));
            }
        }
    }
};

// ---- the product ----------------------------------------------------------------------------------------------------

// A warp's sums over its slice: of a tile and a group, what a lane holds of mma's D.
template <uint32_t T>
using Sums = float[BLOCK_TILES][T / GROUP_TOKENS][4];

// The first rounding's product and, of two planes, the second's.
template <uint32_t PLANES>
__device__ __forceinline__ void integer_products(float (&to)[4], const uint32_t (&a)[4], const uint4& row) {
    const uint32_t first[2] = {row.x, row.y}, second[2] = {row.z, row.w};
    int32_t sums[4] = {SUM_START, SUM_START, SUM_START, SUM_START};
    mma_s8(sums, a, first);
#pragma unroll
    for (uint32_t k = 0; k < 4; k++) to[k] = sub(float_of(sums[k]), SUM_START_F32);
    if (PLANES == 1) return;
    int32_t residual_sums[4] = {SUM_START, SUM_START, SUM_START, SUM_START};
    mma_s8(residual_sums, a, second);
#pragma unroll
    for (uint32_t k = 0; k < 4; k++) {
        to[k] = fma_once(sub(float_of(residual_sums[k]), SUM_START_F32), 1.0f / RESIDUAL_STEPS, to[k]);
    }
}

// Adds one block of columns: block `part` of a unit.
template <uint32_t FORMAT, uint32_t KIND, uint32_t T>
__device__ __forceinline__ void add_block(
    Sums<T>& sums, const typename TileStream<FORMAT>::Unit& unit, uint32_t part,
    const typename TokenRows<KIND, T>::Block& rows) {
    using Stream = TileStream<FORMAT>;
    using Rows = TokenRows<KIND, T>;
#pragma unroll
    for (uint32_t i = 0; i < BLOCK_TILES; i++) {
        uint32_t a[4];
        if (Stream::BF16) {
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                Stream::matrix(a, unit, i, half);
#pragma unroll
                for (uint32_t n = 0; n < Rows::GROUPS; n++) {
                    const uint4& v = rows.values[n];
                    const uint32_t b[2] = {half == 0 ? v.x : v.z, half == 0 ? v.y : v.w};
                    mma_bf16(sums[i][n], a, b);
                }
            }
            continue;
        }
        Stream::matrix(a, unit, i, part);
        float d[2], m[2];  // of rows g and g + 8
        f16_pair_to_f32(part == 0 ? unit.headers[i].x : unit.headers[i].y, d[0], d[1]);
        if (Stream::MINIMA) f16_pair_to_f32(part == 0 ? unit.headers[i].z : unit.headers[i].w, m[0], m[1]);
        if (FORMAT == VITRUM_FORMAT_Q4_0) d[0] = mul(d[0], 1.0f / 16.0f), d[1] = mul(d[1], 1.0f / 16.0f);
#pragma unroll
        for (uint32_t n = 0; n < Rows::GROUPS; n++) {
            float products[4];
            integer_products<Rows::PLANES>(products, a, rows.values[n]);
#pragma unroll
            for (uint32_t k = 0; k < 4; k++) {
                const float scale = rows.scales[n][k % 2];
                float& sum = sums[i][n][k];
                sum = fma_once(mul(d[k / 2], scale), products[k], sum);
                if (Stream::MINIMA) sum = fma_once(m[k / 2], mul(scale, rows.sums[n][k % 2]), sum);
            }
        }
    }
}

// Units of weights under way: 8 or more vectors of 16 bytes a lane, where registers are left for them.
template <uint32_t FORMAT, uint32_t T>
static constexpr uint32_t UNITS_AHEAD = T > 16 ? 2 : FORMAT == VITRUM_FORMAT_BF16 ? 3 : 4;

// This warp's sums of 32 outputs, from `first_output` on, of up to T tokens. `ready` comes between the first loads of
// weights and the first of rows, which it locates; it returns whether there is anything to do.
template <uint32_t FORMAT, uint32_t KIND, uint32_t T, class Ready>
__device__ __forceinline__ bool format_product(
    Sums<T>& sums, const WeightRef& weight, uint32_t first_output, TokenRows<KIND, T>& rows, const Ready& ready) {
    using Stream = TileStream<FORMAT>;
    constexpr uint32_t AHEAD = UNITS_AHEAD<FORMAT, T>;
    constexpr bool ROWS_AHEAD = T <= 16;  // more tokens are work enough to hide a load from the cache
    Stream stream(weight, first_output);
    typename Stream::Unit units[AHEAD];
    const uint32_t count = stream.last - stream.first;
#pragma unroll
    for (uint32_t j = 0; j < AHEAD; j++) {
        if (j < count) stream.load(units[j], j);
    }
    if (!ready()) return false;
#pragma unroll
    for (uint32_t i = 0; i < BLOCK_TILES; i++) {
#pragma unroll
        for (uint32_t n = 0; n < T / GROUP_TOKENS; n++) {
#pragma unroll
            for (uint32_t k = 0; k < 4; k++) sums[i][n][k] = 0.0f;
        }
    }
    typename TokenRows<KIND, T>::Block now, next;
    uint32_t block = stream.first * Stream::UNIT_BLOCKS;
    const uint32_t last_block = rows.layout.blocks - 1;
    if (ROWS_AHEAD) rows.template load<Stream::MINIMA>(next, min(block, last_block));
    for (uint32_t base = 0; base < count; base += AHEAD) {
#pragma unroll
        for (uint32_t j = 0; j < AHEAD; j++) {
            if (base + j >= count) break;
            const typename Stream::Unit unit = units[j];
            if (base + j + AHEAD < count) stream.load(units[j], j + AHEAD);
#pragma unroll
            for (uint32_t part = 0; part < Stream::UNIT_BLOCKS; part++) {
                // Where a pair's second block is missing, its scale is 0, and the row's last block comes again.
                if (ROWS_AHEAD) {
                    now = next;
                    rows.template load<Stream::MINIMA>(next, min(block + 1, last_block));
                } else {
                    rows.template load<Stream::MINIMA>(now, min(block, last_block));
                }
                add_block<FORMAT, KIND, T>(sums, unit, part, now);
                block++;
            }
        }
        stream.advance(AHEAD);
    }
    return true;
}

// The same for a weight of any format that is read with such rows.
template <uint32_t KIND, uint32_t T, class Ready>
__device__ __forceinline__ bool product(
    Sums<T>& sums, const WeightRef& weight, uint32_t first_output, TokenRows<KIND, T>& rows, const Ready& ready) {
    if constexpr (KIND == VITRUM_ACTIVATIONS_BF16) {
        return format_product<VITRUM_FORMAT_BF16, KIND, T>(sums, weight, first_output, rows, ready);
    } else if (weight.format == VITRUM_FORMAT_Q8_0) {
        return format_product<VITRUM_FORMAT_Q8_0, KIND, T>(sums, weight, first_output, rows, ready);
    } else if (weight.format == VITRUM_FORMAT_Q4_0) {
        return format_product<VITRUM_FORMAT_Q4_0, KIND, T>(sums, weight, first_output, rows, ready);
    } else {
        return format_product<VITRUM_FORMAT_Q4_1, KIND, T>(sums, weight, first_output, rows, ready);
    }
}

// ---- the warps' sums, added -----------------------------------------------------------------------------------------

template <uint32_t T>
struct Partials {
    static constexpr uint32_t ROUND_GROUPS = T >= 16 ? 2 : 1;
    static constexpr uint32_t STRIDE = BLOCK_OUTPUTS + 4;  // a warp's stores then fall into different banks
    float values[BLOCK_WARPS][ROUND_GROUPS * GROUP_TOKENS][STRIDE];
};

// Calls `each(n, value)` for every group n, in order: of its token `warp`, this lane's output. All warps call it.
template <uint32_t T, class Each>
__device__ __forceinline__ void add_slices(Partials<T>& partials, const Sums<T>& sums, const Each& each) {
    constexpr uint32_t ROUND_GROUPS = Partials<T>::ROUND_GROUPS;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (uint32_t round = 0; round < T / GROUP_TOKENS; round += ROUND_GROUPS) {
        if (round > 0) __syncthreads();  // the round before has been read
#pragma unroll
        for (uint32_t n = 0; n < ROUND_GROUPS; n++) {
#pragma unroll
            for (uint32_t i = 0; i < BLOCK_TILES; i++) {
#pragma unroll
                for (uint32_t k = 0; k < 4; k++) {
                    const uint32_t token = n * GROUP_TOKENS + lane % 4 * 2 + k % 2;
                    const uint32_t output = i * TILE_ROWS + lane / 4 + k / 2 * 8;
                    partials.values[warp][token][output] = sums[i][round + n][k];
                }
            }
        }
        __syncthreads();
#pragma unroll
        for (uint32_t n = 0; n < ROUND_GROUPS; n++) {
            const uint32_t token = n * GROUP_TOKENS + warp;
            float value = partials.values[0][token][lane];
#pragma unroll
            for (uint32_t slice = 1; slice < BLOCK_WARPS; slice++) {
                value = add(value, partials.values[slice][token][lane]);
            }
            each(round + n, value);
        }
    }
}
