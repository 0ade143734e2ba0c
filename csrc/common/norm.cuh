// The norm before a linear layer: the rows come times gamma, and the product is divided by the root of the mean square.
#pragma once
#include "product.cuh"

// What a block's last part needs is loaded before the product, to hide the latency, if registers are left for it.
template <uint32_t T>
static constexpr bool LOADS_EARLY = T <= 8;

// 1 / sqrt(mean of squares + eps) of the tokens that a warp has in the end: number `warp` of each group.
template <uint32_t T>
struct InverseRms {
    static constexpr uint32_t GROUPS = T / GROUP_TOKENS;
    static constexpr uint32_t FIRST = 4;  // squares a lane loads when the rows are located

    const unsigned char* squares;
    uint32_t offsets[GROUPS];  // of the tokens' rows
    uint32_t blocks;
    float first[GROUPS][FIRST];

    // As TokenRows::locate.
    template <class RowOf>
    __device__ __forceinline__ void locate(const void* rows, const RowsLayout& layout, const RowOf& row_of) {
        squares = static_cast<const unsigned char*>(rows) + layout.squares;
        blocks = layout.blocks;
#pragma unroll
        for (uint32_t n = 0; n < GROUPS; n++) {
            offsets[n] = row_of(n * GROUP_TOKENS + threadIdx.x / 32) * layout.row_bytes;
#pragma unroll
            for (uint32_t i = 0; i < FIRST; i++) first[n][i] = square(n, threadIdx.x % 32 + 32 * i);
        }
    }

    __device__ __forceinline__ float square(uint32_t n, uint32_t block) const {
        return block < blocks ? reinterpret_cast<const float*>(squares + offsets[n])[block] : 0.0f;
    }

    // All lanes of a warp call it. The order of the sum depends on the number of columns alone.
    __device__ __forceinline__ float value(uint32_t n, uint32_t cols, float eps) const {
        float sum = 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < FIRST; i++) sum = add(sum, first[n][i]);
        for (uint32_t i = threadIdx.x % 32 + 32 * FIRST; i < blocks; i += 32) sum = add(sum, square(n, i));
        return 1.0f / sqrtf(add(warp_sum(sum) / static_cast<float>(cols), eps));
    }
};
