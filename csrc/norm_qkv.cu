// q = rope(norm(x) Wq + bias), K cache <- rope(norm(x) Wk + bias), V cache <- norm(x) Wv + bias; or queries and keys
// as they are, for qk_norm.
// Grids: common/entry.cuh, with the blocks of 32 outputs of wq, then of wk, then of wv.
#include "common/entry.cuh"
#include "common/heads.cuh"
#include "common/norm.cuh"
#include "common/stamp.cuh"

enum class Part { QUERY, KEY, VALUE };

// Where one output of a warp's 32 goes: a dimension of a head.
struct HeadPlace {
    Part part;
    uint32_t first_output;  // of the warp, in its part
    uint32_t output;        // this lane's
    uint32_t head;
    uint32_t dim;
    bool exists;
    float bias;  // 0 where there is none

    // Of a block of 32 outputs. Beyond the last one: of values that do not exist.
    __device__ HeadPlace(const NormQkvParams& p, uint32_t block) {
        const uint32_t query_blocks = (p.wq.rows + WARP_OUTPUTS - 1) / WARP_OUTPUTS;
        const uint32_t key_blocks = (p.wk.rows + WARP_OUTPUTS - 1) / WARP_OUTPUTS;
        uint32_t outputs = p.wq.rows, outputs_before = 0;
        part = Part::QUERY;
        if (block >= query_blocks) {
            block -= query_blocks, outputs = p.wk.rows, outputs_before = p.wq.rows, part = Part::KEY;
            if (block >= key_blocks) block -= key_blocks, outputs_before += p.wk.rows, part = Part::VALUE;
        }
        first_output = block * WARP_OUTPUTS;
        output = first_output + threadIdx.x % 32;
        exists = output < outputs;
        head = output / p.head_dim, dim = output % p.head_dim;
        // A weight: no kernel of the chain writes it.
        bias = exists && p.bias != nullptr ? p.bias[outputs_before + output] : 0.0f;
    }

    __device__ void store(const NormQkvParams& p, uint32_t token, uint32_t slot, float value) const {
        if (part == Part::QUERY) {
            p.q[size_t(token) * p.wq.rows + output] = value;
            return;
        }
        if (part == Part::KEY && p.keys != nullptr) {
            p.keys[size_t(token) * p.wk.rows + output] = value;
            return;
        }
        const CachedHead at = cached_head(p.kv_heads, p.head_dim, slot, head);
        if (part == Part::KEY) {
            store_key(p.kv, at, dim, value);
        } else {
            store_value(p.kv, at, dim, value);
        }
    }
};

template <uint32_t KIND, class Block>
__device__ void norm_qkv(const NormQkvParams& p, const LaunchInfo& launch) {
    // Of a token.
    struct Loaded {
        typename InverseRms<Block>::Loaded squares;
        uint32_t slot;
        float angle;
    };
    typename Block::Memory& memory = Block::memory();
    pdl_trigger();
    const HeadPlace place(p, Block::output_block());
    const bool norm = p.gamma != nullptr, turns = place.part != Part::VALUE && p.rope != nullptr;
    const WeightRef weight = place.part == Part::QUERY ? p.wq : place.part == Part::KEY ? p.wk : p.wv;
    const uint32_t first_token = blockIdx.y * Block::TOKENS, tokens = step_word(&p.shape->tokens);
    const auto row_of = [&](uint32_t i) { return min(first_token + i, tokens - 1); };

    TokenRows<KIND, Block::TOKENS> rows;
    InverseRms<Block> inverse_rms(memory, p.rows, rows_layout(p.hidden, KIND));
    Sums<Block::TOKENS> sums;
    Loaded early;
    const auto load_place = [&](uint32_t turn) {
        const uint32_t token = row_of(Block::token(turn));
        Loaded loaded = {inverse_rms.load(turn, row_of), p.slot_mapping[token], 0.0f};
        if (turns) loaded.angle = p.rope[size_t(p.positions[token]) * p.head_dim + place.dim];
        return loaded;
    };
    const bool live = product<Block>(memory, sums, weight, place.first_output, rows, [&] {
        pdl_wait();
        stamp_begin(launch);
        if (first_token >= tokens) return false;
        rows.locate(p.rows, p.hidden, row_of);
        if (norm) inverse_rms.prepare(p.hidden, p.eps, row_of);
        if (Block::LOADS_EARLY) early = load_place(0);
        return true;
    });
    if (live) {
        const auto load = [&](uint32_t turn) { return Block::LOADS_EARLY ? early : load_place(turn); };
        Block::each_token(memory, sums, load, [&](uint32_t turn, float value, const Loaded& loaded) {
            const uint32_t token = first_token + Block::token(turn);
            if (token >= tokens) return;  // the whole warp
            if (norm) value = mul(value, inverse_rms.value(loaded.squares, p.hidden, p.eps));
            if (p.bias != nullptr) value = add(value, place.bias);
            if (turns) value = rotate(value, loaded.angle);
            if (place.exists) place.store(p, token, loaded.slot, value);
        });
    }
    stamp_end(launch);
}

LINEAR_SLICED_KERNELS(norm_qkv, NormQkvParams)
LINEAR_WIDE_KERNELS(norm_qkv, NormQkvParams, 64, 32, false)
