// The variants of a linear kernel: one entry for each form of rows and number of tokens a block.
#pragma once
#include "product.cuh"

// Two blocks a multiprocessor: one waits for memory while the other computes. More tokens need the registers of both.
#define LINEAR_KERNEL(op, Params, form, FORM, tokens)                                          \
    VITRUM_KERNEL __launch_bounds__(BLOCK_THREADS, tokens <= 16 ? 2 : 1) op##_##form##_t##tokens( \
        const __grid_constant__ Params p, const __grid_constant__ LaunchInfo launch) {         \
        op<FORM, tokens>(p, launch);                                                           \
    }

#define LINEAR_KERNELS_OF(op, Params, form, FORM) \
    LINEAR_KERNEL(op, Params, form, FORM, 8)      \
    LINEAR_KERNEL(op, Params, form, FORM, 16)     \
    LINEAR_KERNEL(op, Params, form, FORM, 32)

// op_bf16_t8, ..., op_int8x2_t32; 64 tokens of int8x2 need more registers than a thread has. Each runs blocks of
// BLOCK_THREADS; the grid is (blocks of outputs, bucket / T up).
#define LINEAR_KERNELS(op, Params)                                    \
    LINEAR_KERNELS_OF(op, Params, bf16, VITRUM_ACTIVATIONS_BF16)      \
    LINEAR_KERNELS_OF(op, Params, int8, VITRUM_ACTIVATIONS_INT8)      \
    LINEAR_KERNELS_OF(op, Params, int8x2, VITRUM_ACTIVATIONS_INT8X2)  \
    LINEAR_KERNEL(op, Params, bf16, VITRUM_ACTIVATIONS_BF16, 64)      \
    LINEAR_KERNEL(op, Params, int8, VITRUM_ACTIVATIONS_INT8, 64)
