// Rows of activations in the form in which a linear layer's product reads them: `NextRows::rows`, and the `rows` of a
// linear kernel's parameters.
//
// A row of `cols` values (a multiple of 32) is three parts, one after the other, in blocks of 32 values:
//
//   values   (blocks, BLOCK_BYTES): what one column of mma's B holds of these 32 values. Of the four lanes that hold a
//            column, lane t reads its part at t * BLOCK_BYTES / 4:
//     bf16     16 bytes: values 2t, 2t + 1 | 2t + 8, 2t + 9 | 2t + 16, 2t + 17 | 2t + 24, 2t + 25
//     int8      8 bytes: values 4t .. 4t + 3 | 4t + 16 .. 4t + 19
//     int8x2   16 bytes: those 8 of the values rounded once, then the same 8 of what that left, in steps of 1 / 254
//   scales   (blocks, 2) f32: a value is scale * (first + second / 254); and the sum over the block of first +
//            second / 254. bf16 has neither, and the part is there
//   squares  (blocks) f32: the sum over the block of the squares of the residual stream, before gamma; only where a
//            norm comes before the layer
//
// A row begins at a multiple of 16 bytes, and its bytes depend on nothing but the row.
#pragma once
#include "../params.h"
#include "math.cuh"
#include "reduce.cuh"

struct RowsLayout {
    uint32_t blocks;
    uint32_t block_bytes;
    uint32_t scales;     // offset in a row, in bytes
    uint32_t squares;    // as above
    uint32_t row_bytes;  // from one row to the next
};

__host__ __device__ constexpr RowsLayout rows_layout(uint32_t cols, uint32_t activations) {
    const uint32_t blocks = cols / VITRUM_QUANT_BLOCK;
    const uint32_t block_bytes = activations == VITRUM_ACTIVATIONS_INT8 ? 32 : 64;
    const uint32_t values = blocks * block_bytes, part = blocks * uint32_t(sizeof(float));
    return {blocks, block_bytes, values, values + 2 * part, (values + 3 * part + 15) / 16 * 16};
}

static_assert(VITRUM_QUANT_BLOCK == 32, "a warp holds a block: one value a lane");

// Blocks whose largest magnitude is not above this are zero: 127 / amax must not overflow.
static constexpr float SMALLEST_AMAX = 1e-30f;
// What rounding to the nearest integer leaves is within +-1/2: times this it fills an int8.
static constexpr float RESIDUAL_STEPS = 254.0f;

// Writes one block of a row. A whole warp calls it: lane k has value k, times gamma if a norm comes before the layer.
__device__ inline void write_row_block(
    unsigned char* row, const RowsLayout& layout, uint32_t activations, uint32_t block, float value) {
    const uint32_t lane = threadIdx.x % 32;
    unsigned char* values = row + block * layout.block_bytes;
    if (activations == VITRUM_ACTIVATIONS_BF16) {
        const uint32_t at = lane % 8 / 2 * 16 + lane / 8 * 4 + lane % 2 * 2;
        *reinterpret_cast<uint16_t*>(values + at) = f32_to_bf16(value);
        return;
    }
    const float amax = warp_max(fabsf(value));
    const bool zero = !(amax > SMALLEST_AMAX);
    const float scale = zero ? 0.0f : amax / 127.0f, inverse = zero ? 0.0f : 127.0f / amax;
    const float steps = mul(value, inverse), first = rintf(steps);
    const uint32_t within = lane / 16 * 4 + lane % 4, part = lane % 16 / 4;
    float sum = warp_sum(first);  // of integers: exact
    if (activations == VITRUM_ACTIVATIONS_INT8X2) {
        const float second = rintf(mul(sub(steps, first), RESIDUAL_STEPS));
        values[part * 16 + within] = static_cast<unsigned char>(static_cast<int8_t>(first));
        values[part * 16 + 8 + within] = static_cast<unsigned char>(static_cast<int8_t>(second));
        sum = add(sum, warp_sum(second) / RESIDUAL_STEPS);
    } else {
        values[part * 8 + within] = static_cast<unsigned char>(static_cast<int8_t>(first));
    }
    if (lane == 0) {
        float* scale_and_sum = reinterpret_cast<float*>(row + layout.scales) + 2 * block;
        scale_and_sum[0] = scale, scale_and_sum[1] = sum;
    }
}

// One block of the rows that a kernel leaves for the layer that reads them next: 32 columns, a lane of a warp each.
struct NextBlock {
    unsigned char* rows;  // nullptr: no layer reads them next
    RowsLayout layout;
    uint32_t activations;
    uint32_t block;
    bool norm;    // one comes before the layer
    float gamma;  // of this lane's column

    // Of rows of `cols` values; a block beyond them leaves nothing. It reads gamma alone, a weight: no kernel of the
    // chain writes it.
    __device__ NextBlock(const NextRows& next, uint32_t cols, uint32_t block)
        : rows(block * VITRUM_QUANT_BLOCK < cols ? static_cast<unsigned char*>(next.rows) : nullptr),
          layout(rows_layout(cols, next.activations)),
          activations(next.activations),
          block(block),
          norm(rows != nullptr && next.gamma != nullptr),
          gamma(norm ? next.gamma[block * VITRUM_QUANT_BLOCK + threadIdx.x % 32] : 1.0f) {}

    // A whole warp calls it: lane k has value k of the block.
    __device__ void leave(uint32_t row, float value) const {
        if (rows == nullptr) return;
        unsigned char* to = rows + size_t(row) * layout.row_bytes;
        if (norm) {
            const float squares = warp_sum(mul(value, value));
            if (threadIdx.x % 32 == 0) reinterpret_cast<float*>(to + layout.squares)[block] = squares;
            value = mul(value, gamma);
        }
        write_row_block(to, layout, activations, block, value);
    }
};
