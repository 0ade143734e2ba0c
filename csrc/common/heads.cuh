// Pieces of heads: the rotary embedding's turn, and the place of values in the KV cache.
#pragma once
#include "../params.h"
#include "math.cuh"
#include "ptx.cuh"
#include "reduce.cuh"

// Rotates pairs of neighbouring lanes; a lane has the cosine of its pair if it is even, else the sine. A whole warp
// calls it.
__device__ __forceinline__ float rotate(float value, float angle) {
    const bool even = threadIdx.x % 2 == 0;
    const float other = __shfl_xor_sync(ALL_LANES, value, 1), other_angle = __shfl_xor_sync(ALL_LANES, angle, 1);
    const float cosine = even ? angle : other_angle, sine = even ? other_angle : angle;
    const float turned = mul(other, sine);
    return add(mul(value, cosine), even ? -turned : turned);
}

__device__ __forceinline__ void store_cached(void* cache, uint32_t format, size_t at, float value) {
    if (format == VITRUM_FORMAT_F16) {
        static_cast<uint16_t*>(cache)[at] = f32_to_f16(value);
    } else {
        static_cast<float*>(cache)[at] = value;
    }
}

// A head's part of a page, and the position in it.
struct CachedHead {
    size_t first;
    uint32_t offset;
    uint32_t head_dim;
};

__device__ __forceinline__ CachedHead cached_head(uint32_t kv_heads, uint32_t head_dim, uint32_t slot, uint32_t head) {
    const uint32_t page = slot / VITRUM_PAGE_TOKENS;
    return {(size_t(page) * kv_heads + head) * head_dim * VITRUM_PAGE_TOKENS, slot % VITRUM_PAGE_TOKENS, head_dim};
}

__device__ __forceinline__ void store_key(const KvCacheRef& kv, const CachedHead& at, uint32_t dim, float value) {
    store_cached(kv.k, kv.format, at.first + dim * VITRUM_PAGE_TOKENS + at.offset, value);
}

__device__ __forceinline__ void store_value(const KvCacheRef& kv, const CachedHead& at, uint32_t dim, float value) {
    store_cached(kv.v, kv.format, at.first + at.offset * at.head_dim + dim, value);
}
