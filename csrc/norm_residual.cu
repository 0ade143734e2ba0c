// x += norm(y), and the same prepared for the layer that reads x.
//
// A block of 256 threads has one row: grid = (bucket of tokens); a warp has every eighth block of 32 columns, a lane
// one of its values. Every warp sums the squares of all of them, in one order: the bits of a row depend on nothing
// else.
#include "common/math.cuh"
#include "common/ptx.cuh"
#include "common/reduce.cuh"
#include "common/rows.cuh"
#include "common/stamp.cuh"
#include "params.h"

namespace {

constexpr uint32_t THREADS = 256, WARPS = THREADS / 32;
constexpr uint32_t BLOCK = VITRUM_QUANT_BLOCK;
static_assert(BLOCK == 32, "a lane per value");

}  // namespace

VITRUM_KERNEL __launch_bounds__(THREADS) norm_residual(
    const __grid_constant__ NormResidualParams p, const __grid_constant__ LaunchInfo launch) {
    pdl_trigger();
    pdl_wait();
    stamp_begin(launch);
    const uint32_t row = blockIdx.x, lane = threadIdx.x % 32;
    if (row < p.shape->tokens) {
        const float* y = p.y + size_t(row) * p.hidden;
        float* x = p.x + size_t(row) * p.hidden;
        float squares = 0.0f;
        for (uint32_t column = lane; column < p.hidden; column += 32) squares = fma_once(y[column], y[column], squares);
        const float mean = warp_sum(squares) / static_cast<float>(p.hidden);
        const float inverse_rms = 1.0f / sqrtf(add(mean, p.eps));
        for (uint32_t block = threadIdx.x / 32; block < p.hidden / BLOCK; block += WARPS) {
            const uint32_t column = block * BLOCK + lane;
            const float value = add(x[column], mul(mul(y[column], inverse_rms), p.gamma[column]));
            x[column] = value;
            NextBlock(p.next, p.hidden, block).leave(row, value);
        }
    }
    stamp_end(launch);
}
