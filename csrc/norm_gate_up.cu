// out = silu(norm(x) Wgate) * (norm(x) Wup); biases are not taken.
// Grids: common/entry.cuh; a warp has the same 32 outputs of both.
#include "common/entry.cuh"
#include "common/norm.cuh"
#include "common/stamp.cuh"

template <uint32_t KIND, class Block>
__device__ void norm_gate_up(const NormGateUpParams& p, const LaunchInfo& launch) {
    typename Block::Memory& memory = Block::memory();
    pdl_trigger();
    const uint32_t output_block = Block::output_block(), first_output = output_block * WARP_OUTPUTS;
    const uint32_t output = first_output + threadIdx.x % 32;
    const uint32_t first_token = blockIdx.y * Block::TOKENS, tokens = step_word(&p.shape->tokens);

    TokenRows<KIND, Block::TOKENS> rows;
    InverseRms<Block> inverse_rms(memory, p.rows, rows_layout(p.hidden, KIND));
    Sums<Block::TOKENS> gate_sums, up_sums;
    typename Block::Kept gates(memory);  // silu(gate) / rms
    const bool norm = p.gamma != nullptr;
    typename InverseRms<Block>::Loaded early;
    const auto row_of = [&](uint32_t i) { return min(first_token + i, tokens - 1); };
    const bool live = product<Block>(memory, gate_sums, p.gate, first_output, rows, [&] {
        pdl_wait();
        stamp_begin(launch);
        if (first_token >= tokens) return false;
        rows.locate(p.rows, p.hidden, row_of);
        if (norm) inverse_rms.prepare(p.hidden, p.eps, row_of);
        if (Block::LOADS_EARLY) early = inverse_rms.load(0, row_of);
        return true;
    });
    if (live) {
        product<Block>(memory, up_sums, p.up, first_output, rows, [&] {
            const auto load = [&](uint32_t turn) {
                return Block::LOADS_EARLY ? early : inverse_rms.load(turn, row_of);
            };
            Block::each_token(memory, gate_sums, load, [&](uint32_t turn, float value, const auto& loaded) {
                const float inverse = norm ? inverse_rms.value(loaded, p.hidden, p.eps) : 1.0f;
                gates.of(turn) = mul(silu(mul(value, inverse)), inverse);
            });
            __syncthreads();  // read, and free for the other sums
            return true;
        });
        const NextBlock next(p.next, p.ffn, output_block);  // no norm comes between: there is no gamma to wait for
        const auto load = [&](uint32_t turn) { return gates.of(turn); };
        Block::each_token(memory, up_sums, load, [&](uint32_t turn, float value, float gate) {
            const uint32_t token = first_token + Block::token(turn);
            if (token >= tokens) return;  // the whole warp
            const float out = mul(gate, value);
            if (p.out != nullptr && output < p.ffn) p.out[size_t(token) * p.ffn + output] = out;
            next.leave(token, out);
        });
    }
    stamp_end(launch);
}

LINEAR_SLICED_KERNELS(norm_gate_up, NormGateUpParams)
LINEAR_WIDE_KERNELS(norm_gate_up, NormGateUpParams, 32, 32, true)
