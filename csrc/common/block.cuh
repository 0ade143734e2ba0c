// The two ways in which the 8 warps of a block share a product. They give the same bits.
//
//   SlicedBlock  for few rows: 32 outputs of T tokens, a slice of the columns a warp, so that many warps read a weight.
//                In the end a warp has the tokens `warp`, `warp + 8`, ...
//   WideBlock    for many: 256 outputs of T tokens, 32 outputs and all columns a warp. The 8 warps read the same rows
//                at about the same time, from the multiprocessor's own cache. In the end a warp has all T tokens.
//
// In the end a warp goes from token to token, in turns; of each, a lane has one of the warp's 32 outputs.
#pragma once
#include "product.cuh"

// This warp's sums of 32 outputs, from `first_output` on, of up to T tokens. `ready` comes between the first loads of
// weights and the first of rows, which it locates; it returns whether there is anything to do.
template <class Format, class Block, uint32_t KIND, class Ready>
__device__ __forceinline__ bool format_product(
    typename Block::Memory& memory, Sums<Block::TOKENS>& sums, const WeightRef& weight, uint32_t first_output,
    TokenRows<KIND, Block::TOKENS>& rows, const Ready& ready) {
    TileStream<Format, Block::RING_BYTES> stream(
        weight, first_output, Block::first_slice(), Block::end_slice(), memory.ring);
    stream.start();
    if (!ready()) {
        copy_async_wait<0>();
        return false;
    }
    Block::sum(memory, sums, stream, rows);
    return true;
}

// The same for a weight of any format that is read with such rows.
template <class Block, uint32_t KIND, class Ready>
__device__ __forceinline__ bool product(
    typename Block::Memory& memory, Sums<Block::TOKENS>& sums, const WeightRef& weight, uint32_t first_output,
    TokenRows<KIND, Block::TOKENS>& rows, const Ready& ready) {
    return with_format_of_rows<KIND>(weight.format, [&](auto format) {
        return format_product<decltype(format), Block>(memory, sums, weight, first_output, rows, ready);
    });
}

// Of a group, what the lanes hold of mma's D, to where token by token is read: (8 tokens, outputs). A warp's stores of
// one register then fall into different banks.
static constexpr uint32_t TURNED_STRIDE = WARP_OUTPUTS + 4;

__device__ __forceinline__ void turn(float* to, const float (&sums)[WARP_TILES][4]) {
    const uint32_t lane = threadIdx.x % 32;
#pragma unroll
    for (uint32_t i = 0; i < WARP_TILES; i++) {
#pragma unroll
        for (uint32_t k = 0; k < 4; k++) {
            to[(lane % 4 * 2 + k % 2) * TURNED_STRIDE + i * TILE_ROWS + lane / 4 + k / 2 * 8] = sums[i][k];
        }
    }
}

// ---- a slice a warp -------------------------------------------------------------------------------------------------

template <uint32_t T>
struct SlicedBlock {
    static constexpr uint32_t TOKENS = T;
    static constexpr uint32_t TURNS = T / GROUP_TOKENS;
    static constexpr uint32_t RING_BYTES = 4608;
    // What the last part needs is loaded before the product, to hide the latency, if registers are left for it.
    static constexpr bool LOADS_EARLY = TURNS == 1;
    static_assert(GROUP_TOKENS == BLOCK_WARPS && SLICES == BLOCK_WARPS, "a warp has one token of each group");

    struct Memory {
        Ring<RING_BYTES> ring;
        float turned[BLOCK_WARPS][GROUP_TOKENS * TURNED_STRIDE];
    };
    static_assert(sizeof(Memory) <= 48 << 10, "what a block has without asking");

    // What is kept of every turn for a later one.
    struct Kept {
        float values[TURNS];
        __device__ __forceinline__ explicit Kept(Memory&) {}
        __device__ __forceinline__ float& of(uint32_t turn) { return values[turn]; }
    };

    static __device__ __forceinline__ Memory& memory() {
        __shared__ Memory memory;
        return memory;
    }

    // Which 32 outputs this warp has.
    static __device__ __forceinline__ uint32_t output_block() { return blockIdx.x; }
    // Which token of the block this warp has in a turn.
    static __device__ __forceinline__ uint32_t token(uint32_t turn) {
        return turn * GROUP_TOKENS + threadIdx.x / 32;
    }
    static __device__ __forceinline__ uint32_t first_slice() { return threadIdx.x / 32; }
    static __device__ __forceinline__ uint32_t end_slice() { return threadIdx.x / 32 + 1; }

    template <class Stream, uint32_t KIND>
    static __device__ __forceinline__ void sum(Memory&, Sums<T>& sums, Stream& stream, TokenRows<KIND, T>& rows) {
        slice_product(sums, stream, rows, threadIdx.x / 32);
    }

    // Calls `each(turn, value, loaded)` in order, `loaded` being what `load(turn)` gave before. All warps call it.
    template <class Load, class Each>
    static __device__ __forceinline__ void each_token(
        Memory& memory, const Sums<T>& sums, const Load& load, const Each& each) {
        const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
        for (uint32_t n = 0; n < TURNS; n++) {
            const auto loaded = load(n);
            if (n > 0) __syncthreads();  // the group before has been read
            turn(memory.turned[warp], sums[n]);
            __syncthreads();
            const auto of_slice = [&](uint32_t slice) { return memory.turned[slice][warp * TURNED_STRIDE + lane]; };
            float value = of_slice(0);
#pragma unroll
            for (uint32_t slice = 1; slice < SLICES; slice++) value = add(value, of_slice(slice));
            each(n, value, loaded);
        }
    }
};

// ---- all slices a warp ----------------------------------------------------------------------------------------------

template <uint32_t T, bool KEEPS = false>
struct WideBlock {
    static constexpr uint32_t TOKENS = T;
    static constexpr uint32_t TURNS = T;
    static constexpr uint32_t RING_BYTES = 4096;
    static constexpr bool LOADS_EARLY = false;
    static constexpr uint32_t BATCH = 4;  // turns whose loads are under way at once
    static constexpr uint32_t CELLS = T / GROUP_TOKENS * WARP_TILES;

    struct __align__(16) Memory {
        Ring<RING_BYTES> ring;
        float4 totals[BLOCK_WARPS][CELLS][32];  // of the slices before; in the end, a warp's part is for `turn`
        float kept[KEEPS ? T : 1][BLOCK_THREADS];
        float inverses[T];  // see common/norm.cuh
    };
    static_assert(GROUP_TOKENS * TURNED_STRIDE * sizeof(float) <= CELLS * 32 * sizeof(float4), "a group fits");
    static_assert(sizeof(Memory) <= VITRUM_LINEAR_WIDE_SHARED, "what a block is given");

    // As SlicedBlock's. A thread has its own.
    struct Kept {
        float (&values)[KEEPS ? T : 1][BLOCK_THREADS];
        __device__ __forceinline__ explicit Kept(Memory& memory) : values(memory.kept) {}
        __device__ __forceinline__ float& of(uint32_t turn) { return values[turn][threadIdx.x]; }
    };

    static __device__ __forceinline__ Memory& memory() {
        DYNAMIC_SHARED(Memory, memory);
        return *memory;
    }

    static __device__ __forceinline__ uint32_t output_block() { return blockIdx.x * BLOCK_WARPS + threadIdx.x / 32; }
    static __device__ __forceinline__ uint32_t token(uint32_t turn) { return turn; }
    static __device__ __forceinline__ uint32_t first_slice() { return 0; }
    static __device__ __forceinline__ uint32_t end_slice() { return SLICES; }

    // The slices' sums are added in the order in which SlicedBlock adds them, each where its thread has it.
    template <class Stream, uint32_t KIND>
    static __device__ __forceinline__ void sum(
        Memory& memory, Sums<T>& sums, Stream& stream, TokenRows<KIND, T>& rows) {
        float4(&totals)[CELLS][32] = memory.totals[threadIdx.x / 32];
#pragma unroll 1
        for (uint32_t slice = 0; slice < SLICES; slice++) {
            slice_product(sums, stream, rows, slice);
#pragma unroll
            for (uint32_t cell = 0; cell < CELLS; cell++) {
                float4& total = totals[cell][threadIdx.x % 32];
                float(&sum)[4] = sums[cell / WARP_TILES][cell % WARP_TILES];
                if (slice > 0) {
                    const float4 before = total;
                    sum[0] = add(before.x, sum[0]), sum[1] = add(before.y, sum[1]);
                    sum[2] = add(before.z, sum[2]), sum[3] = add(before.w, sum[3]);
                }
                total = make_float4(sum[0], sum[1], sum[2], sum[3]);
            }
        }
    }

    template <class Load, class Each>
    static __device__ __forceinline__ void each_token(
        Memory& memory, const Sums<T>& sums, const Load& load, const Each& each) {
        float* turned = reinterpret_cast<float*>(memory.totals[threadIdx.x / 32]);
#pragma unroll
        for (uint32_t n = 0; n < T / GROUP_TOKENS; n++) {
            __syncwarp();  // totals, or the group before, have been read
            turn(turned, sums[n]);
            __syncwarp();
#pragma unroll 1
            for (uint32_t first = 0; first < GROUP_TOKENS; first += BATCH) {
                decltype(load(0)) loaded[BATCH];
#pragma unroll
                for (uint32_t i = 0; i < BATCH; i++) loaded[i] = load(n * GROUP_TOKENS + first + i);
#pragma unroll
                for (uint32_t i = 0; i < BATCH; i++) {
                    const float value = turned[(first + i) * TURNED_STRIDE + threadIdx.x % 32];
                    each(n * GROUP_TOKENS + first + i, value, loaded[i]);
                }
            }
        }
    }
};
