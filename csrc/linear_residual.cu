// x += input W^T: a projection added to the residual stream. Grid: (outputs / 32 up, bucket / T up).
#include "common/entry.cuh"
#include "common/norm.cuh"
#include "common/stamp.cuh"

template <uint32_t KIND, uint32_t T>
__device__ void linear_residual(const LinearResidualParams& p, const LaunchInfo& launch) {
    BlockMemory& memory = block_memory();
    pdl_trigger();
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t first_output = blockIdx.x * BLOCK_OUTPUTS, output = first_output + lane;
    const uint32_t first_token = blockIdx.y * T, tokens = step_word(&p.shape->tokens);
    const bool exists = output < p.weight.rows;
    const NextBlock next(p.next, p.weight.rows, blockIdx.x);
    const auto token_of = [&](uint32_t n) { return first_token + n * GROUP_TOKENS + warp; };

    TokenRows<KIND, T> rows;
    Sums<T> sums;
    float x[T / GROUP_TOKENS];
    const auto load_x = [&] {
#pragma unroll
        for (uint32_t n = 0; n < T / GROUP_TOKENS; n++) {
            const uint32_t token = token_of(n);
            x[n] = exists && token < tokens ? p.x[size_t(token) * p.weight.rows + output] : 0.0f;
        }
    };
    const bool live = product(sums, p.weight, first_output, memory.ring, rows, [&] {
        pdl_wait();
        stamp_begin(launch);
        if (first_token >= tokens) return false;
        rows.locate(p.rows, p.weight.cols, [&](uint32_t i) { return min(first_token + i, tokens - 1); });
        if (LOADS_EARLY<T>) load_x();
        return true;
    });
    if (live) {
        if (!LOADS_EARLY<T>) load_x();
        add_slices<T>(memory.partials, sums, [&](uint32_t n, float value) {
            const uint32_t token = token_of(n);
            if (token >= tokens) return;  // the whole warp
            const float sum = add(x[n], value);
            if (exists) p.x[size_t(token) * p.weight.rows + output] = sum;
            next.leave(token, sum);
        });
    }
    stamp_end(launch);
}

LINEAR_KERNELS(linear_residual, LinearResidualParams)
