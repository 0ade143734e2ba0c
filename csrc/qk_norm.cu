// q = rope(norm(q)), K cache <- rope(norm(keys)): the norm of each head by itself, or of all heads of a row together.
//
// A block of 256 threads has the queries of one token, or its keys: grid = (bucket of tokens, 2). A warp has every
// eighth head; of a norm over all heads, every warp sums the squares of the whole row, in one order. q is replaced in
// place: a warp's values are read and written by its own lanes, behind a barrier where others have summed them.
#include "common/math.cuh"
#include "common/heads.cuh"
#include "common/ptx.cuh"
#include "common/reduce.cuh"
#include "common/stamp.cuh"
#include "params.h"

namespace {

constexpr uint32_t THREADS = 256, WARPS = THREADS / 32;

// 1 / sqrt(mean of squares + eps). All lanes of a warp call it.
__device__ __forceinline__ float inverse_rms(const float* values, uint32_t count, float eps) {
    float squares = 0.0f;
    for (uint32_t i = threadIdx.x % 32; i < count; i += 32) squares = fma_once(values[i], values[i], squares);
    return 1.0f / sqrtf(add(warp_sum(squares) / static_cast<float>(count), eps));
}

}  // namespace

VITRUM_KERNEL __launch_bounds__(THREADS) qk_norm(
    const __grid_constant__ QkNormParams p, const __grid_constant__ LaunchInfo launch) {
    pdl_trigger();
    pdl_wait();
    stamp_begin(launch);
    const uint32_t token = blockIdx.x, lane = threadIdx.x % 32;
    if (token < p.shape->tokens) {
        const bool keys = blockIdx.y == 1;
        const uint32_t heads = keys ? p.kv_heads : p.heads, width = heads * p.head_dim;
        const float* from = (keys ? p.keys : p.q) + size_t(token) * width;
        const float* gamma = keys ? p.k_gamma : p.q_gamma;
        const float* angles = p.rope != nullptr ? p.rope + size_t(p.positions[token]) * p.head_dim : nullptr;
        const uint32_t slot = p.slot_mapping[token];
        float inverse = p.whole != 0 ? inverse_rms(from, width, p.eps) : 0.0f;
        __syncthreads();  // the row was summed by all: now it may change
        for (uint32_t head = threadIdx.x / 32; head < heads; head += WARPS) {
            const uint32_t first = head * p.head_dim;
            if (p.whole == 0) inverse = inverse_rms(from + first, p.head_dim, p.eps);
            const CachedHead at = cached_head(p.kv_heads, p.head_dim, slot, head);
            // A head is a multiple of 16 wide: half a warp may have nothing in the last turn.
            for (uint32_t turn = 0; turn < p.head_dim; turn += 32) {
                const uint32_t dim = turn + lane;
                const bool exists = dim < p.head_dim;
                float value = 0.0f, angle = 0.0f;
                if (exists) {
                    value = mul(mul(from[first + dim], inverse), gamma[p.whole != 0 ? first + dim : dim]);
                    if (angles != nullptr) angle = angles[dim];
                }
                if (angles != nullptr) value = rotate(value, angle);
                if (!exists) continue;
                if (keys) {
                    store_key(p.kv, at, dim, value);
                } else {
                    p.q[size_t(token) * width + first + dim] = value;
                }
            }
        }
    }
    stamp_end(launch);
}
