// x[i] = scale * embedding row of token i, and the same prepared for the layer that reads x.
//
// A block of 256 threads has one row of x: grid = (bucket of tokens); a warp has every eighth block of 32 columns, a
// lane one of its values. Of the packed matrix (common/weights.cuh) a row is every 16th of the lanes' words: few bytes
// of each, which are read only here.
#include "common/math.cuh"
#include "common/ptx.cuh"
#include "common/rows.cuh"
#include "common/stamp.cuh"
#include "common/weights.cuh"
#include "formats/table.cuh"
#include "params.h"

namespace {

constexpr uint32_t THREADS = 256, WARPS = THREADS / 32;
constexpr uint32_t BLOCK = VITRUM_QUANT_BLOCK;
static_assert(BLOCK == 32, "a lane per value");

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
        const uint32_t rows = p.weight.rows, number = p.weight.format;
        const auto layout = [&](auto format) { return weight_layout<decltype(format)>(rows, hidden); };
        const PackedRow packed = {static_cast<const unsigned char*>(p.weight.data), with_format(number, layout),
                                  token / TILE_ROWS, token % TILE_ROWS};
        const uint32_t lane = threadIdx.x % 32;
        for (uint32_t block = threadIdx.x / 32; block < hidden / BLOCK; block += WARPS) {
            const auto read = [&](auto format) { return decltype(format)::value(packed, block, lane); };
            const float value = mul(with_format(number, read), p.scale);
            p.x[size_t(row) * hidden + block * BLOCK + lane] = value;
            NextBlock(p.next, hidden, block).leave(row, value);
        }
    }
    stamp_end(launch);
}
