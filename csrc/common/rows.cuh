// Rows of activations in the form in which a linear layer's product reads them: `NextRows::rows`, and the `rows` of a
// linear kernel's parameters.
//
// A row of `cols` values (a multiple of 32) is four parts, one after the other, in blocks of 32 values:
//
//   values   (blocks, BLOCK_BYTES): what one column of mma's B holds of these 32 values. Of the four lanes that hold a
//            column, lane t reads its part at t * BLOCK_BYTES / 4:
//     bf16     16 bytes: values 2t, 2t + 1 | 2t + 8, 2t + 9 | 2t + 16, 2t + 17 | 2t + 24, 2t + 25
//     int8      8 bytes: values 4t .. 4t + 3 | 4t + 16 .. 4t + 19
//     int8x2   16 bytes: those 8 of the values rounded once, then the same 8 of what that left, in steps of 1 / 254
//   scales   (blocks) f32: a value is scale * (first + second / 254). bf16 has none, and the part is there
//   sums     (blocks) f32: the sum over the block of first + second / 254. As for the scales
//   squares  (blocks) f32: the sum over the block of the squares of the residual stream, before gamma; only where a
//            norm comes before the layer
//
// A row begins at a multiple of 16 bytes, and its bytes depend on nothing but the row.
#pragma once
#include "../params.h"

struct RowsLayout {
    uint32_t blocks;
    uint32_t block_bytes;
    uint32_t scales;     // offset in a row, in bytes
    uint32_t sums;       // as above
    uint32_t squares;    // as above
    uint32_t row_bytes;  // from one row to the next
};

__host__ __device__ constexpr RowsLayout rows_layout(uint32_t cols, uint32_t activations) {
    const uint32_t blocks = cols / VITRUM_QUANT_BLOCK;
    const uint32_t block_bytes = activations == VITRUM_ACTIVATIONS_INT8 ? 32 : 64;
    const uint32_t values = blocks * block_bytes, part = blocks * uint32_t(sizeof(float));
    return {blocks, block_bytes, values, values + part, values + 2 * part, (values + 3 * part + 15) / 16 * 16};
}
