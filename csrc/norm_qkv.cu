// q = rope(norm(x) Wq), K cache <- rope(norm(x) Wk), V cache <- norm(x) Wv.
// Grid: (blocks of 32 outputs of wq, then of wk, then of wv, bucket / T up).
#include "common/entry.cuh"
#include "common/norm.cuh"
#include "common/stamp.cuh"

enum class Part { QUERY, KEY, VALUE };

__device__ __forceinline__ void store_cached(void* cache, uint32_t format, size_t at, float value) {
    if (format == VITRUM_FORMAT_F16) {
        static_cast<uint16_t*>(cache)[at] = f32_to_f16(value);
    } else {
        static_cast<float*>(cache)[at] = value;
    }
}

// Rotates pairs of neighbouring lanes; a lane has the cosine of its pair if it is even, else the sine.
__device__ __forceinline__ float rotate(float value, float angle) {
    const bool even = threadIdx.x % 2 == 0;
    const float other = __shfl_xor_sync(ALL_LANES, value, 1), other_angle = __shfl_xor_sync(ALL_LANES, angle, 1);
    const float cosine = even ? angle : other_angle, sine = even ? other_angle : angle;
    const float turned = mul(other, sine);
    return add(mul(value, cosine), even ? -turned : turned);
}

// Where one output of a block goes: a dimension of a head.
struct HeadPlace {
    Part part;
    uint32_t first_output;  // of the block, in its part
    uint32_t output;        // this lane's
    uint32_t head;
    uint32_t dim;
    bool exists;

    __device__ explicit HeadPlace(const NormQkvParams& p) {
        const uint32_t query_blocks = (p.wq.rows + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS;
        const uint32_t key_blocks = (p.wk.rows + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS;
        uint32_t block = blockIdx.x, outputs = p.wq.rows;
        part = Part::QUERY;
        if (block >= query_blocks) {
            block -= query_blocks, outputs = p.wk.rows, part = Part::KEY;
            if (block >= key_blocks) block -= key_blocks, part = Part::VALUE;
        }
        first_output = block * BLOCK_OUTPUTS;
        output = first_output + threadIdx.x % 32;
        exists = output < outputs;
        head = output / p.head_dim, dim = output % p.head_dim;
    }

    __device__ void store(const NormQkvParams& p, uint32_t token, uint32_t slot, float value) const {
        if (part == Part::QUERY) {
            p.q[size_t(token) * p.wq.rows + output] = value;
            return;
        }
        const uint32_t page = slot / VITRUM_PAGE_TOKENS, offset = slot % VITRUM_PAGE_TOKENS;
        const size_t first = (size_t(page) * p.kv_heads + head) * p.head_dim * VITRUM_PAGE_TOKENS;
        if (part == Part::KEY) {
            store_cached(p.kv.k, p.kv.format, first + dim * VITRUM_PAGE_TOKENS + offset, value);
        } else {
            store_cached(p.kv.v, p.kv.format, first + offset * p.head_dim + dim, value);
        }
    }
};

template <uint32_t KIND, uint32_t T>
__device__ void norm_qkv(const NormQkvParams& p, const LaunchInfo& launch) {
    constexpr uint32_t GROUPS = T / GROUP_TOKENS;
    BlockMemory& memory = block_memory();
    pdl_trigger();
    const HeadPlace place(p);
    const WeightRef weight = place.part == Part::QUERY ? p.wq : place.part == Part::KEY ? p.wk : p.wv;
    const uint32_t first_token = blockIdx.y * T, tokens = step_word(&p.shape->tokens);
    const auto row_of = [&](uint32_t i) { return min(first_token + i, tokens - 1); };
    const auto token_of = [&](uint32_t n) { return n * GROUP_TOKENS + threadIdx.x / 32; };

    TokenRows<KIND, T> rows;
    InverseRms<T> inverse_rms;
    Sums<T> sums;
    float angles[GROUPS];
    uint32_t slots[GROUPS];
    const auto load_places = [&] {
        inverse_rms.locate(p.rows, rows.layout, row_of);
#pragma unroll
        for (uint32_t n = 0; n < GROUPS; n++) {
            const uint32_t token = row_of(token_of(n));
            slots[n] = p.slot_mapping[token];
            angles[n] = 0.0f;
            if (place.part != Part::VALUE) angles[n] = p.rope[size_t(p.positions[token]) * p.head_dim + place.dim];
        }
    };
    const bool live = product(sums, weight, place.first_output, memory.ring, rows, [&] {
        pdl_wait();
        stamp_begin(launch);
        if (first_token >= tokens) return false;
        rows.locate(p.rows, p.hidden, row_of);
        if (LOADS_EARLY<T>) load_places();
        return true;
    });
    if (live) {
        if (!LOADS_EARLY<T>) load_places();
        add_slices<T>(memory.partials, sums, [&](uint32_t n, float value) {
            const uint32_t token = first_token + token_of(n);
            if (token >= tokens) return;  // the whole warp
            value = mul(value, inverse_rms.value(n, p.hidden, p.eps));
            if (place.part != Part::VALUE) value = rotate(value, angles[n]);
            if (place.exists) place.store(p, token, slots[n], value);
        });
    }
    stamp_end(launch);
}

LINEAR_KERNELS(norm_qkv, NormQkvParams)
