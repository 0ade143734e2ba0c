// x = from + scale * (input W^T + bias): a projection, added to the residual stream or by itself.
// Grids: common/entry.cuh.
#include "common/entry.cuh"
#include "common/stamp.cuh"

template <uint32_t KIND, class Block>
__device__ void linear_residual(const LinearResidualParams& p, const LaunchInfo& launch) {
    typename Block::Memory& memory = Block::memory();
    pdl_trigger();
    const uint32_t output_block = Block::output_block(), output = output_block * WARP_OUTPUTS + threadIdx.x % 32;
    const uint32_t first_token = blockIdx.y * Block::TOKENS, tokens = step_word(&p.shape->tokens);
    const bool exists = output < p.weight.rows;
    // A weight: no kernel of the chain writes it.
    const float bias = exists && p.bias != nullptr ? p.bias[output] : 0.0f;
    const NextBlock next(p.next, p.weight.rows, output_block);

    TokenRows<KIND, Block::TOKENS> rows;
    Sums<Block::TOKENS> sums;
    float early = 0.0f;
    const auto load_x = [&](uint32_t turn) {
        const uint32_t token = first_token + Block::token(turn);
        const bool adds = exists && token < tokens && p.from != nullptr;
        return adds ? p.from[size_t(token) * p.weight.rows + output] : 0.0f;
    };
    const bool live = product<Block>(memory, sums, p.weight, output_block * WARP_OUTPUTS, rows, [&] {
        pdl_wait();
        stamp_begin(launch);
        if (first_token >= tokens) return false;
        rows.locate(p.rows, p.weight.cols, [&](uint32_t i) { return min(first_token + i, tokens - 1); });
        if (Block::LOADS_EARLY) early = load_x(0);
        return true;
    });
    if (live) {
        const auto load = [&](uint32_t turn) { return Block::LOADS_EARLY ? early : load_x(turn); };
        Block::each_token(memory, sums, load, [&](uint32_t turn, float value, float x) {
            const uint32_t token = first_token + Block::token(turn);
            if (token >= tokens) return;  // the whole warp
            if (p.bias != nullptr) value = add(value, bias);
            value = mul(value, p.scale);
            const float sum = p.from != nullptr ? add(x, value) : value;
            if (exists) p.x[size_t(token) * p.weight.rows + output] = sum;
            next.leave(token, sum);
        });
    }
    stamp_end(launch);
}

LINEAR_SLICED_KERNELS(linear_residual, LinearResidualParams)
LINEAR_WIDE_KERNELS(linear_residual, LinearResidualParams, 64, 32, false)
