// logits = norm(x[logit_rows]) W^T. Grid: (vocab / 32 up, bucket / T up), the bucket being one of logit rows.
#include "common/entry.cuh"
#include "common/norm.cuh"
#include "common/stamp.cuh"

template <uint32_t KIND, uint32_t T>
__device__ void norm_lm_head(const NormLmHeadParams& p, const LaunchInfo& launch) {
    BlockMemory& memory = block_memory();
    pdl_trigger();
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t first_output = blockIdx.x * BLOCK_OUTPUTS, output = first_output + lane;
    const uint32_t first_row = blockIdx.y * T, logit_rows = step_word(&p.shape->logit_rows);

    TokenRows<KIND, T> rows;
    InverseRms<T> inverse_rms;
    Sums<T> sums;
    const auto row_of = [&](uint32_t i) { return step_word(p.logit_rows + min(first_row + i, logit_rows - 1)); };
    const auto locate_squares = [&] { inverse_rms.locate(p.rows, rows.layout, row_of); };
    const bool live = product(sums, p.weight, first_output, memory.ring, rows, [&] {
        pdl_wait();
        stamp_begin(launch);
        if (first_row >= logit_rows) return false;
        rows.locate(p.rows, p.hidden, row_of);
        if (LOADS_EARLY<T>) locate_squares();
        return true;
    });
    if (live) {
        if (!LOADS_EARLY<T>) locate_squares();
        add_slices<T>(memory.partials, sums, [&](uint32_t n, float value) {
            const uint32_t row = first_row + n * GROUP_TOKENS + warp;
            if (row >= logit_rows) return;  // the whole warp
            const float logit = mul(value, inverse_rms.value(n, p.hidden, p.eps));
            if (output < p.vocab) p.logits[size_t(row) * p.stride + output] = logit;
        });
    }
    stamp_end(launch);
}

LINEAR_KERNELS(norm_lm_head, NormLmHeadParams)
