// The variants of a linear kernel: one entry for each form of rows, way to share the work and number of tokens a block.
#pragma once
#include "block.cuh"

#define LINEAR_KERNEL(name, op, Params, FORM, blocks, ...)                              \
    VITRUM_KERNEL __launch_bounds__(BLOCK_THREADS, blocks) name(                        \
        const __grid_constant__ Params p, const __grid_constant__ LaunchInfo launch) { \
        op<FORM, __VA_ARGS__>(p, launch);                                               \
    }

// Two blocks a multiprocessor: one waits for memory while the other computes. More tokens need the registers of both.
#define LINEAR_SLICED(op, Params, form, FORM, tokens) \
    LINEAR_KERNEL(op##_##form##_t##tokens, op, Params, FORM, tokens <= 16 ? 2 : 1, SlicedBlock<tokens>)

#define LINEAR_SLICED_FORM(op, Params, form, FORM) \
    LINEAR_SLICED(op, Params, form, FORM, 8)       \
    LINEAR_SLICED(op, Params, form, FORM, 16)      \
    LINEAR_SLICED(op, Params, form, FORM, 32)

// For few rows: op_bf16_t8, ..., op_int8x2_t32; 64 tokens of int8x2 need more registers than a thread has. Each runs
// blocks of BLOCK_THREADS; the grid is (blocks of 32 outputs, bucket / tokens up).
#define LINEAR_SLICED_KERNELS(op, Params)                              \
    LINEAR_SLICED_FORM(op, Params, bf16, VITRUM_ACTIVATIONS_BF16)      \
    LINEAR_SLICED_FORM(op, Params, int8, VITRUM_ACTIVATIONS_INT8)      \
    LINEAR_SLICED_FORM(op, Params, int8x2, VITRUM_ACTIVATIONS_INT8X2)  \
    LINEAR_SLICED(op, Params, bf16, VITRUM_ACTIVATIONS_BF16, 64)       \
    LINEAR_SLICED(op, Params, int8, VITRUM_ACTIVATIONS_INT8, 64)

// For many: op_bf16_w64, with VITRUM_LINEAR_WIDE_SHARED bytes of dynamic shared memory. The grid is (blocks of 32
// outputs / 8 up, bucket / tokens up). `keeps`: the kernel uses Kept.
#define LINEAR_WIDE(op, Params, form, FORM, tokens, keeps) \
    LINEAR_KERNEL(op##_##form##_w##tokens, op, Params, FORM, 1, WideBlock<tokens, keeps>)

#define LINEAR_WIDE_KERNELS(op, Params, tokens, tokens_int8x2, keeps)                   \
    LINEAR_WIDE(op, Params, bf16, VITRUM_ACTIVATIONS_BF16, tokens, keeps)               \
    LINEAR_WIDE(op, Params, int8, VITRUM_ACTIVATIONS_INT8, tokens, keeps)               \
    LINEAR_WIDE(op, Params, int8x2, VITRUM_ACTIVATIONS_INT8X2, tokens_int8x2, keeps)
