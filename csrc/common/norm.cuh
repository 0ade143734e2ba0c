// The norm before a linear layer: the rows come times gamma, and the product is divided by the root of the mean square.
#pragma once
#include "block.cuh"

// What a warp has loaded of the squares of one row.
struct RowSquares {
    static constexpr uint32_t FIRST = 4;  // squares a lane loads at once

    const float* squares;
    uint32_t blocks;
    float first[FIRST];

    RowSquares() = default;

    __device__ __forceinline__ RowSquares(const void* rows, const RowsLayout& layout, uint32_t row)
        : squares(reinterpret_cast<const float*>(
              static_cast<const unsigned char*>(rows) + size_t(row) * layout.row_bytes + layout.squares)),
          blocks(layout.blocks) {
#pragma unroll
        for (uint32_t i = 0; i < FIRST; i++) first[i] = square(threadIdx.x % 32 + 32 * i);
    }

    __device__ __forceinline__ float square(uint32_t block) const { return block < blocks ? squares[block] : 0.0f; }

    // 1 / sqrt(mean of squares + eps). All lanes of a warp call it. The order of the sum depends on the number of
    // columns alone.
    __device__ __forceinline__ float inverse_rms(uint32_t cols, float eps) const {
        float sum = 0.0f;
#pragma unroll
        for (uint32_t i = 0; i < FIRST; i++) sum = add(sum, first[i]);
        for (uint32_t i = threadIdx.x % 32 + 32 * FIRST; i < blocks; i += 32) sum = add(sum, square(i));
        return 1.0f / sqrtf(add(warp_sum(sum) / static_cast<float>(cols), eps));
    }
};

// Of the block's tokens: `prepare` comes once, before the product; `load` and `value` in a token's turn.
template <class Block>
struct InverseRms;

// A token is of one warp.
template <uint32_t T>
struct InverseRms<SlicedBlock<T>> {
    using Loaded = RowSquares;
    const void* rows;
    RowsLayout layout;

    __device__ __forceinline__ InverseRms(typename SlicedBlock<T>::Memory&, const void* rows, const RowsLayout& layout)
        : rows(rows), layout(layout) {}

    template <class RowOf>
    __device__ __forceinline__ void prepare(uint32_t, float, const RowOf&) {}
    template <class RowOf>
    __device__ __forceinline__ Loaded load(uint32_t turn, const RowOf& row_of) const {
        return RowSquares(rows, layout, row_of(SlicedBlock<T>::token(turn)));
    }
    __device__ __forceinline__ float value(const Loaded& loaded, uint32_t cols, float eps) const {
        return loaded.inverse_rms(cols, eps);
    }
};

// Every warp has every token: each works out some, for all.
template <uint32_t T, bool KEEPS>
struct InverseRms<WideBlock<T, KEEPS>> {
    using Loaded = float;
    typename WideBlock<T, KEEPS>::Memory& memory;
    const void* rows;
    RowsLayout layout;

    __device__ __forceinline__ InverseRms(
        typename WideBlock<T, KEEPS>::Memory& memory, const void* rows, const RowsLayout& layout)
        : memory(memory), rows(rows), layout(layout) {}

    template <class RowOf>
    __device__ __forceinline__ void prepare(uint32_t cols, float eps, const RowOf& row_of) {
        for (uint32_t token = threadIdx.x / 32; token < T; token += BLOCK_WARPS) {
            const float inverse = RowSquares(rows, layout, row_of(token)).inverse_rms(cols, eps);
            if (threadIdx.x % 32 == 0) memory.inverses[token] = inverse;
        }
        __syncthreads();
    }
    template <class RowOf>
    __device__ __forceinline__ Loaded load(uint32_t turn, const RowOf&) const {
        return memory.inverses[turn];
    }
    __device__ __forceinline__ float value(const Loaded& loaded, uint32_t, float) const { return loaded; }
};
