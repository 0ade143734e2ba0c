// The norm before a linear layer: the rows come times gamma, and the product is divided by the root of the mean square.
#pragma once
#include "product.cuh"

// 1 / sqrt(mean of squares + eps) of the tokens that a warp has in the end: number `warp` of each group.
template <uint32_t T>
struct InverseRms {
    static constexpr uint32_t GROUPS = T / GROUP_TOKENS;
    static constexpr uint32_t EARLY = T <= 16 ? 4 : 0;  // squares a lane loads before the product: what registers allow

    const unsigned char* squares;
    uint32_t rows[GROUPS];  // offsets of the tokens' rows
    uint32_t blocks;
    float early[GROUPS][EARLY + 1];

    __device__ __forceinline__ const float* row(uint32_t n) const {
        return reinterpret_cast<const float*>(squares + rows[n]);
    }

    // As TokenRows::locate.
    template <class RowOf>
    __device__ void locate(const void* prepared, const RowsLayout& layout, const RowOf& row_of) {
        squares = static_cast<const unsigned char*>(prepared) + layout.squares;
        blocks = layout.blocks;
        const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
        for (uint32_t n = 0; n < GROUPS; n++) {
            rows[n] = row_of(n * GROUP_TOKENS + warp) * layout.row_bytes;
#pragma unroll
            for (uint32_t i = 0; i + 1 < EARLY + 1; i++) early[n][i] = lane + 32 * i < blocks ? row(n)[lane + 32 * i] : 0.0f;
        }
    }

    // All lanes of a warp call it. The order of the sum depends on the number of columns alone.
    __device__ __forceinline__ float value(uint32_t n, uint32_t cols, float eps) const {
        const uint32_t lane = threadIdx.x % 32;
        float sum = 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < EARLY; i++) sum = add(sum, early[n][i]);
        for (uint32_t i = lane + 32 * EARLY; i < blocks; i += 32) sum = add(sum, row(n)[i]);
        return 1.0f / sqrtf(add(warp_sum(sum) / static_cast<float>(cols), eps));
    }
};
