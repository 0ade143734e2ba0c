// logits = scale * norm(x[logit_rows]) W^T. Grids: common/entry.cuh, the bucket being one of logit rows.
#include "common/entry.cuh"
#include "common/norm.cuh"
#include "common/stamp.cuh"

template <uint32_t KIND, class Block>
__device__ void norm_lm_head(const NormLmHeadParams& p, const LaunchInfo& launch) {
    typename Block::Memory& memory = Block::memory();
    pdl_trigger();
    const uint32_t first_output = Block::output_block() * WARP_OUTPUTS, output = first_output + threadIdx.x % 32;
    const uint32_t first_row = blockIdx.y * Block::TOKENS, logit_rows = step_word(&p.shape->logit_rows);

    TokenRows<KIND, Block::TOKENS> rows;
    InverseRms<Block> inverse_rms(memory, p.rows, rows_layout(p.hidden, KIND));
    Sums<Block::TOKENS> sums;
    typename InverseRms<Block>::Loaded early;
    const auto row_of = [&](uint32_t i) { return step_word(p.logit_rows + min(first_row + i, logit_rows - 1)); };
    const bool live = product<Block>(memory, sums, p.weight, first_output, rows, [&] {
        pdl_wait();
        stamp_begin(launch);
        if (first_row >= logit_rows) return false;
        rows.locate(p.rows, p.hidden, row_of);
        inverse_rms.prepare(p.hidden, p.eps, row_of);
        if (Block::LOADS_EARLY) early = inverse_rms.load(0, row_of);
        return true;
    });
    if (live) {
        const auto load = [&](uint32_t turn) {
            return Block::LOADS_EARLY ? early : inverse_rms.load(turn, row_of);
        };
        Block::each_token(memory, sums, load, [&](uint32_t turn, float value, const auto& loaded) {
            const uint32_t row = first_row + Block::token(turn);
            if (row >= logit_rows) return;  // the whole warp
            const float logit = mul(mul(value, inverse_rms.value(loaded, p.hidden, p.eps)), p.scale);
            if (output < p.vocab) p.logits[size_t(row) * p.stride + output] = logit;
        });
    }
    stamp_end(launch);
}

LINEAR_SLICED_KERNELS(norm_lm_head, NormLmHeadParams)
LINEAR_WIDE_KERNELS(norm_lm_head, NormLmHeadParams, 64, 32, false)
