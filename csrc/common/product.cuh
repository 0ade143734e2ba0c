// The product of packed weights and prepared rows: what every linear layer's time goes into.
//
// A warp makes 32 outputs (two tiles of mma's 16) of up to T tokens (T / 8 groups of mma's 8). The columns are cut into
// 8 slices, and the sums of the slices are added in their order: by the warps of a block that have a slice each, or by
// one warp that has them all (common/block.cuh). The cuts depend on the weight alone, and a token's column of mma is
// computed alike wherever it stands: so the bits of a result depend on the row and the weight, never on the batch, on T
// or on which warp did it.
//
// Weights are read once per T tokens, 16 bytes a lane, into a ring in shared memory, several units ahead of their use;
// the first ones before the kernel waits for the one before it. Rows come from the caches.
#pragma once
#include "../formats/table.cuh"
#include "math.cuh"
#include "ptx.cuh"
#include "reduce.cuh"
#include "rows.cuh"
#include "weights.cuh"

static constexpr uint32_t BLOCK_WARPS = 8;
static constexpr uint32_t BLOCK_THREADS = 32 * BLOCK_WARPS;
static constexpr uint32_t WARP_OUTPUTS = 32;
static constexpr uint32_t WARP_TILES = WARP_OUTPUTS / TILE_ROWS;
static constexpr uint32_t GROUP_TOKENS = 8;  // mma's N
static_assert(WARP_OUTPUTS == VITRUM_QUANT_BLOCK, "a warp's outputs are one block of the rows that it leaves");
static constexpr uint32_t SLICES = 8;  // of the columns

// Integer sums start here: their bits are then those of the float 1.5 * 2^23 + sum, as long as |sum| < 2^22.
static constexpr int32_t SUM_START = 0x4b400000;
static constexpr float SUM_START_F32 = 12582912.0f;
static_assert(VITRUM_QUANT_BLOCK * 128 * 128 < 1u << 22, "the sum of a block of products of bytes");

// A true size, or a row's place, of the step. The host writes them before the first kernel of the chain starts and not
// again before the last one ends, so they may be read before pdl_wait(). Volatile: not from a cache that the host's
// copy passed by.
__device__ __forceinline__ uint32_t step_word(const uint32_t* word) {
    return *static_cast<const volatile uint32_t*>(word);
}

// ---- weights --------------------------------------------------------------------------------------------------------

// Where a block's weights are under way: a warp's part has `BYTES`. With all that is under way in it, a block of 8
// warps hides the latency of memory alone.
template <uint32_t BYTES>
struct __align__(16) Ring {
    unsigned char bytes[BLOCK_WARPS][BYTES];
};

// A warp's way through two tiles of a weight matrix, over its slices of columns, in units. A step is what the slices
// are cut in: a whole number of blocks.
template <class OfFormat, uint32_t RING_BYTES>
struct TileStream {
    using Format = OfFormat;
    static constexpr uint32_t STEP_BLOCKS = Step<Format>::BLOCKS;
    static constexpr uint32_t STEP_UNITS = Step<Format>::UNITS;
    static constexpr uint32_t VALUE_BYTES = TILE_UNIT_BYTES;
    static constexpr uint32_t LANE_HEADER_BYTES = Format::LANE_HEADER_BYTES;  // of a tile, in a unit
    static constexpr uint32_t HEADER_BYTES = 8 * LANE_HEADER_BYTES;
    static constexpr uint32_t UNIT_BYTES = WARP_TILES * (VALUE_BYTES + HEADER_BYTES);
    static constexpr uint32_t STAGES = RING_BYTES / UNIT_BYTES;
    static constexpr uint32_t HEADER_LANES = WARP_TILES * HEADER_BYTES / 16;  // that copy 16 bytes each
    static_assert(STAGES >= 3, "several units are under way");
    static_assert(UNIT_BYTES % 16 == 0 && HEADER_LANES <= 32 && HEADER_BYTES % 16 == 0, "16 bytes a lane");

    // What a lane has of a unit.
    struct Unit {
        uint4 values[WARP_TILES];
        uint4 headers[WARP_TILES];  // f16 of rows g and g + 8: scales of one block or two, then their minima
    };

    const unsigned char* values[WARP_TILES];  // where the next copy is from
    const unsigned char* headers;              // likewise, if this lane copies one
    unsigned char* ring;                       // the warp's
    uint32_t stage = 0;                        // of the next unit, in bytes
    uint32_t ahead;                            // units not yet under way
    uint32_t all_steps;                        // of all slices

    // The slices from `first_slice` up to `end_slice`.
    __device__ __forceinline__ TileStream(
        const WeightRef& weight, uint32_t first_output, uint32_t first_slice, uint32_t end_slice,
        Ring<RING_BYTES>& memory) {
        const WeightLayout layout = weight_layout<Format>(weight.rows, weight.cols);
        const unsigned char* data = static_cast<const unsigned char*>(weight.data);
        const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        all_steps = layout.tile_bytes / (STEP_UNITS * VALUE_BYTES);
        ahead = (first_step(end_slice) - first_step(first_slice)) * STEP_UNITS;
        ring = memory.bytes[warp];
        // Beyond the last tile: the last one again, whose outputs nobody takes.
        const auto tile = [&](uint32_t i) { return uint64_t(min(first_output / TILE_ROWS + i, layout.row_tiles - 1)); };
        const uint32_t first_unit = first_step(first_slice) * STEP_UNITS;
#pragma unroll
        for (uint32_t i = 0; i < WARP_TILES; i++) {
            values[i] = data + tile(i) * layout.tile_bytes + first_unit * VALUE_BYTES + lane * 16;
        }
        headers = data + layout.headers + first_unit * HEADER_BYTES;
        if constexpr (HEADER_BYTES > 0) {
            const uint32_t i = lane * 16 / HEADER_BYTES, within = lane * 16 % HEADER_BYTES;
            if (lane < HEADER_LANES) headers += tile(i) * layout.header_bytes + within;
        }
    }

    __device__ __forceinline__ uint32_t first_step(uint32_t slice) const { return all_steps * slice / SLICES; }

    // Starts the copy of the next unit that is not yet under way, into a stage that has been read.
    __device__ __forceinline__ void copy(uint32_t to) {
        if (ahead > 0) {
            const uint32_t lane = threadIdx.x % 32;
#pragma unroll
            for (uint32_t i = 0; i < WARP_TILES; i++) {
                copy_async(ring + to + i * VALUE_BYTES + lane * 16, values[i]);
                values[i] += VALUE_BYTES;
            }
            if (HEADER_BYTES > 0 && lane < HEADER_LANES) {
                copy_async(ring + to + WARP_TILES * VALUE_BYTES + lane * 16, headers);
            }
            headers += HEADER_BYTES;
            ahead--;
        }
        copy_async_commit();  // an empty one too: groups are counted
    }

    __device__ __forceinline__ void start() {
#pragma unroll
        for (uint32_t stage = 0; stage < STAGES; stage++) copy(stage * UNIT_BYTES);
    }

    // The next unit. All lanes call it.
    __device__ __forceinline__ Unit take() {
        copy_async_wait<STAGES - 1>();
        __syncwarp();  // the other lanes' copies too
        const uint32_t lane = threadIdx.x % 32;
        const unsigned char* from = ring + stage;
        Unit unit;
#pragma unroll
        for (uint32_t i = 0; i < WARP_TILES; i++) {
            unit.values[i] = *reinterpret_cast<const uint4*>(from + i * VALUE_BYTES + lane * 16);
            const unsigned char* header =
                from + WARP_TILES * VALUE_BYTES + i * HEADER_BYTES + lane / 4 * LANE_HEADER_BYTES;
            if (LANE_HEADER_BYTES == 16) unit.headers[i] = *reinterpret_cast<const uint4*>(header);
            if (LANE_HEADER_BYTES == 8) {
                const uint2 scales = *reinterpret_cast<const uint2*>(header);
                unit.headers[i].x = scales.x, unit.headers[i].y = scales.y;
            }
            if (LANE_HEADER_BYTES == 4) unit.headers[i].x = *reinterpret_cast<const uint32_t*>(header);
        }
        __syncwarp();  // read by all, and free
        copy(stage);
        stage = stage == (STAGES - 1) * UNIT_BYTES ? 0 : stage + UNIT_BYTES;
        return unit;
    }
};

// ---- rows -----------------------------------------------------------------------------------------------------------

// How a lane reads the rows of a block's tokens. With g = lane / 4 and t = lane % 4: of each group its part of the
// values of token g, and that token's scale and sum.
template <uint32_t KIND, uint32_t T>
struct TokenRows {
    static constexpr uint32_t GROUPS = T / GROUP_TOKENS;
    static constexpr bool BF16 = KIND == VITRUM_ACTIVATIONS_BF16;
    static constexpr uint32_t PLANES = KIND == VITRUM_ACTIVATIONS_INT8X2 ? 2 : 1;
    static constexpr uint32_t BLOCK_BYTES = KIND == VITRUM_ACTIVATIONS_INT8 ? 32 : 64;
    static constexpr uint32_t SCALE_BYTES = 2 * sizeof(float);
    static_assert(T % GROUP_TOKENS == 0, "whole groups");

    // One block of columns of a group.
    struct Block {
        uint4 values;  // int8: x and y alone
        float scale;
        float sum;
    };

    RowsLayout layout;
    const unsigned char* values;  // of row 0, this lane's
    const unsigned char* scales;  // of row 0
    uint32_t offsets[GROUPS];     // of token g's rows: all the rows are less than 4 GiB

    // `row_of` gives the row of the block's token i, for any i < T. Beyond the last token: any row that exists.
    template <class RowOf>
    __device__ __forceinline__ void locate(const void* rows, uint32_t cols, const RowOf& row_of) {
        layout = rows_layout(cols, KIND);
        values = static_cast<const unsigned char*>(rows) + threadIdx.x % 4 * (BLOCK_BYTES / 4);
        scales = static_cast<const unsigned char*>(rows) + layout.scales;
#pragma unroll
        for (uint32_t n = 0; n < GROUPS; n++) {
            offsets[n] = row_of(n * GROUP_TOKENS + threadIdx.x % 32 / 4) * layout.row_bytes;
        }
    }

    __device__ __forceinline__ void advance(uint32_t blocks) {
        values += blocks * BLOCK_BYTES;
        scales += blocks * SCALE_BYTES;
    }

    __device__ __forceinline__ void go_back(uint32_t blocks) {
        values -= blocks * BLOCK_BYTES;
        scales -= blocks * SCALE_BYTES;
    }

    // The block `ahead` of where the rows are. One that does not exist has scale 0.
    template <bool SUMS>
    __device__ __forceinline__ Block load(uint32_t n, uint32_t ahead, bool exists) const {
        Block to;
        to.scale = to.sum = 0.0f;
        if (!exists) return to;
        const unsigned char* value = values + ahead * BLOCK_BYTES + offsets[n];
        const unsigned char* scale = scales + ahead * SCALE_BYTES + offsets[n];
        if (KIND == VITRUM_ACTIVATIONS_INT8) {
            const uint2 v = *reinterpret_cast<const uint2*>(value);
            to.values.x = v.x, to.values.y = v.y;
        } else {
            to.values = *reinterpret_cast<const uint4*>(value);
        }
        if (SUMS) {
            const float2 both = *reinterpret_cast<const float2*>(scale);
            to.scale = both.x, to.sum = both.y;
        } else if (!BF16) {
            to.scale = *reinterpret_cast<const float*>(scale);
        }
        return to;
    }
};

// The values of tokens 2t and 2t + 1, of which lanes 8t and 8t + 4 have one.
__device__ __forceinline__ void of_columns(float (&to)[2], float value) {
    const int lane = threadIdx.x % 4 * 8;
    to[0] = __shfl_sync(ALL_LANES, value, lane);
    to[1] = __shfl_sync(ALL_LANES, value, lane + 4);
}

// ---- the product ----------------------------------------------------------------------------------------------------

// A warp's sums: of a group and a tile, what a lane holds of mma's D.
template <uint32_t T>
using Sums = float[T / GROUP_TOKENS][WARP_TILES][4];

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

// Adds what a unit has of one block of columns, for all groups; `row(n)` gives the block of a group. Part: which block
// of the unit or, of bf16, which half of the block.
template <class Stream, uint32_t KIND, uint32_t T, class Row>
__device__ __forceinline__ void add_part(
    Sums<T>& sums, const typename Stream::Unit& unit, uint32_t part, const Row& row) {
    using Format = typename Stream::Format;
    using Rows = TokenRows<KIND, T>;
    uint32_t a[WARP_TILES][4];
    float d[WARP_TILES][2], m[WARP_TILES][2];  // of rows g and g + 8
#pragma unroll
    for (uint32_t i = 0; i < WARP_TILES; i++) {
        Format::matrix(a[i], unit.values[i], part);
        if (Rows::BF16) continue;
        f16_pair_to_f32(part == 0 ? unit.headers[i].x : unit.headers[i].y, d[i][0], d[i][1]);
        if (Format::MINIMA) f16_pair_to_f32(part == 0 ? unit.headers[i].z : unit.headers[i].w, m[i][0], m[i][1]);
        if (Format::SCALE_FACTOR == 1.0f) continue;
        d[i][0] = mul(d[i][0], Format::SCALE_FACTOR), d[i][1] = mul(d[i][1], Format::SCALE_FACTOR);
    }
#pragma unroll
    for (uint32_t n = 0; n < Rows::GROUPS; n++) {
        const typename Rows::Block b = row(n);
        float scales[2], block_sums[2];  // of tokens 2t and 2t + 1
        if (!Rows::BF16) of_columns(scales, b.scale);
        if (Format::MINIMA) of_columns(block_sums, mul(b.scale, b.sum));
#pragma unroll
        for (uint32_t i = 0; i < WARP_TILES; i++) {
            if (Rows::BF16) {
                const uint32_t columns[2] = {part == 0 ? b.values.x : b.values.z, part == 0 ? b.values.y : b.values.w};
                mma_bf16(sums[n][i], a[i], columns);
                continue;
            }
            float products[4];
            integer_products<Rows::PLANES>(products, a[i], b.values);
#pragma unroll
            for (uint32_t k = 0; k < 4; k++) {
                float& sum = sums[n][i][k];
                sum = fma_once(mul(d[i][k / 2], scales[k % 2]), products[k], sum);
                if (Format::MINIMA) sum = fma_once(m[i][k / 2], block_sums[k % 2], sum);
            }
        }
    }
}

// A warp's sums over one slice, which is the stream's next.
template <class Stream, uint32_t KIND, uint32_t T>
__device__ __forceinline__ void slice_product(
    Sums<T>& sums, Stream& stream, TokenRows<KIND, T>& rows, uint32_t slice) {
    using Rows = TokenRows<KIND, T>;
    constexpr bool AHEAD = T <= 16;  // rows are loaded a block ahead; more tokens are work enough to hide a load
#pragma unroll
    for (uint32_t n = 0; n < Rows::GROUPS; n++) {
#pragma unroll
        for (uint32_t k = 0; k < WARP_TILES * 4; k++) sums[n][k / 4][k % 4] = 0.0f;
    }
    uint32_t block = stream.first_step(slice) * Stream::STEP_BLOCKS;
    const uint32_t end = stream.first_step(slice + 1) * Stream::STEP_BLOCKS;
    if (block == end) return;
    rows.advance(block);
    typename Rows::Block now[Rows::GROUPS], next[Rows::GROUPS];
#pragma unroll
    for (uint32_t n = 0; n < Rows::GROUPS; n++) {
        if (AHEAD) next[n] = rows.template load<Stream::Format::MINIMA>(n, 0, true);
    }
#pragma unroll 1
    for (; block < end; block += Stream::STEP_BLOCKS) {
#pragma unroll
        for (uint32_t u = 0; u < Stream::STEP_UNITS; u++) {
            const typename Stream::Unit unit = stream.take();
#pragma unroll(T <= 8 ? Stream::STEP_BLOCKS : 1)  // what registers allow
            for (uint32_t b = 0; b < Stream::STEP_BLOCKS; b++) {
                const uint32_t ahead = AHEAD ? b + 1 : b;
                const bool exists = ahead == 0 || block + ahead < rows.layout.blocks;
#pragma unroll
                for (uint32_t n = 0; n < Rows::GROUPS; n++) {
                    if (!AHEAD || u > 0) continue;
                    now[n] = next[n];
                    next[n] = rows.template load<Stream::Format::MINIMA>(n, ahead, exists);
                }
                add_part<Stream, KIND, T>(sums, unit, u + b, [&](uint32_t n) {
                    return AHEAD ? now[n] : rows.template load<Stream::Format::MINIMA>(n, ahead, exists);
                });
            }
        }
        rows.advance(Stream::STEP_BLOCKS);
    }
    rows.go_back(end);
}
