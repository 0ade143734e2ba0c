// x[i] = embedding row of token i, and the same prepared for the layer that reads x.
//
// A block of 256 threads has one row of x: grid = (bucket of tokens); a warp has every eighth block of 32 columns, a
// lane one of its values. Of the packed matrix (common/weights.cuh) a row is every 16th of the lanes' words: few bytes
// of each, which are read only here.
#include "common/math.cuh"
#include "common/ptx.cuh"
#include "common/rows.cuh"
#include "common/stamp.cuh"
#include "common/weights.cuh"
#include "params.h"

namespace {

constexpr uint32_t THREADS = 256, WARPS = THREADS / 32;
constexpr uint32_t BLOCK = VITRUM_QUANT_BLOCK;
static_assert(BLOCK == 32, "a lane per value");

// One row of a packed matrix.
struct PackedRow {
    const unsigned char* data;
    WeightLayout layout;
    uint32_t format;
    uint32_t tile, row;  // the row of that tile

    // Where a column of 4 lanes' words (a lane: 16 bytes) is: a lane holds WORD_COLS neighbours per word, four lanes
    // 4 * WORD_COLS of them; a[0] and a[1] are rows r and r + 8, a[2] and a[3] the same for the next 4 * WORD_COLS.
    template <uint32_t WORD_COLS>
    __device__ uint32_t lane_of(uint32_t col) const {
        return row % 8 * 4 + col % (4 * WORD_COLS) / WORD_COLS;
    }
    template <uint32_t WORD_COLS>
    __device__ uint32_t word_of(uint32_t col) const {
        return col / (4 * WORD_COLS) * 2 + row / 8;
    }

    // The block's scale, or 8 bytes further its minimum.
    __device__ float header(uint32_t block, uint32_t further) const {
        const uint64_t at = scale_offset(layout, format, tile * TILE_ROWS + row, block) + further;
        float value, none;
        f16_pair_to_f32(*reinterpret_cast<const uint16_t*>(data + at), value, none);
        return value;
    }

    // Value k of a block.
    __device__ float value(uint32_t block, uint32_t k) const {
        const unsigned char* values = data + size_t(tile) * layout.tile_bytes;
        if (format == VITRUM_FORMAT_BF16) {
            const uint32_t col = k % 16;
            const unsigned char* at = values + (block * 2 + k / 16) * 512 + lane_of<2>(col) * 16 + word_of<2>(col) * 4;
            return bf16_to_f32(reinterpret_cast<const uint16_t*>(at)[col % 2]);
        }
        const float d = header(block, 0);
        if (format == VITRUM_FORMAT_Q8_0) {
            const unsigned char* at = values + block * 512 + lane_of<4>(k) * 16 + word_of<4>(k) * 4 + k % 4;
            return mul(d, static_cast<float>(static_cast<int8_t>(*at)));
        }
        const unsigned char pair = values[block / 2 * 512 + lane_of<4>(k) * 16 + block % 2 * 8 + row / 8 * 4 + k % 4];
        const float q = static_cast<float>(k < 16 ? pair & 15 : pair >> 4);
        return format == VITRUM_FORMAT_Q4_1 ? add(mul(d, q), header(block, 8)) : mul(d, sub(q, 8.0f));
    }
};

}  // namespace

VITRUM_KERNEL __launch_bounds__(THREADS) embed(
    const __grid_constant__ EmbedParams p, const __grid_constant__ LaunchInfo launch) {
    pdl_trigger();
    pdl_wait();
    stamp_begin(launch);
    const uint32_t row = blockIdx.x, hidden = p.weight.cols;
    if (row < p.shape->tokens) {
        const int32_t source = p.token_source[row];
        const uint32_t token = source >= 0 ? static_cast<uint32_t>(source) : p.slot_tokens[-1 - source];
        const PackedRow packed = {static_cast<const unsigned char*>(p.weight.data),
                                  weight_layout(p.weight.rows, hidden, p.weight.format), p.weight.format,
                                  token / TILE_ROWS, token % TILE_ROWS};
        const uint32_t lane = threadIdx.x % 32;
        for (uint32_t block = threadIdx.x / 32; block < hidden / BLOCK; block += WARPS) {
            const float value = packed.value(block, lane);
            p.x[size_t(row) * hidden + block * BLOCK + lane] = value;
            NextBlock(p.next, hidden, block).leave(row, value);
        }
    }
    stamp_end(launch);
}
