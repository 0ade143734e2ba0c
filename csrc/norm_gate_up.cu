// out = silu(norm(x) Wgate) * (norm(x) Wup).
// Grid: (ffn / 32 up, bucket / T up); a block has the same 32 outputs of both.
#include "common/entry.cuh"
#include "common/norm.cuh"
#include "common/stamp.cuh"

template <uint32_t KIND, uint32_t T>
__device__ void norm_gate_up(const NormGateUpParams& p, const LaunchInfo& launch) {
    BlockMemory& memory = block_memory();
    pdl_trigger();
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t first_output = blockIdx.x * BLOCK_OUTPUTS, output = first_output + lane;
    const uint32_t first_token = blockIdx.y * T, tokens = step_word(&p.shape->tokens);

    TokenRows<KIND, T> rows;
    InverseRms<T> inverse_rms;
    Sums<T> gate_sums, up_sums;
    float gate[T / GROUP_TOKENS];  // silu(gate) / rms
    const auto row_of = [&](uint32_t i) { return min(first_token + i, tokens - 1); };
    const auto locate_squares = [&] { inverse_rms.locate(p.rows, rows.layout, row_of); };
    const bool live = product(gate_sums, p.gate, first_output, memory.ring, rows, [&] {
        pdl_wait();
        stamp_begin(launch);
        if (first_token >= tokens) return false;
        rows.locate(p.rows, p.hidden, row_of);
        if (LOADS_EARLY<T>) locate_squares();
        return true;
    });
    if (live) {
        product(up_sums, p.up, first_output, memory.ring, rows, [&] {
            if (!LOADS_EARLY<T>) locate_squares();
            add_slices<T>(memory.partials, gate_sums, [&](uint32_t n, float value) {
                const float inverse = inverse_rms.value(n, p.hidden, p.eps);
                gate[n] = mul(silu(mul(value, inverse)), inverse);
            });
            __syncthreads();  // read, and free for the other sums
            return true;
        });
        const NextBlock next(p.next, p.ffn, blockIdx.x);  // no norm comes between: there is no gamma to wait for
        add_slices<T>(memory.partials, up_sums, [&](uint32_t n, float value) {
            const uint32_t token = first_token + n * GROUP_TOKENS + warp;
            if (token >= tokens) return;  // the whole warp
            const float out = mul(gate[n], value);
            if (p.out != nullptr && output < p.ffn) p.out[size_t(token) * p.ffn + output] = out;
            next.leave(token, out);
        });
    }
    stamp_end(launch);
}

LINEAR_KERNELS(norm_gate_up, NormGateUpParams)
