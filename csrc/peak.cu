// What the device can do: reading, copying, products of matrices, by the instructions that the other kernels use. They
// are stamped; src/device/cuda/measure makes rates of that.
//
// A block has 256 threads; the grid is what the device holds at once. Launched alone, after all that is in the stream:
// there is no kernel to wait for.
#include "common/ptx.cuh"
#include "common/stamp.cuh"
#include "params.h"

namespace {

constexpr uint32_t THREADS = 256;
constexpr uint32_t LOADS = 8;  // words of 16 bytes that a thread asks for in a turn: the compiler says how many at once
constexpr uint32_t CHAINS = VITRUM_PEAK_MATRIX_CHAINS;

// Which word a thread begins with, and how many words all threads have together.
__device__ uint64_t first_word() { return uint64_t(blockIdx.x) * THREADS + threadIdx.x; }
__device__ uint64_t grid_words() { return uint64_t(gridDim.x) * THREADS; }

// Numbers between 1 and 2 and between -1 and -2 in each half of a word, or any four bytes: a product of zeros takes
// less power than one of numbers, and a device at its limit of power is slower for that.
__device__ uint32_t some_bf16(uint32_t i) { return 0x3f803f80 | ((threadIdx.x * 8 + i) * 0x9e3779b9 & 0x807f807f); }
__device__ uint32_t some_bytes(uint32_t i) { return (threadIdx.x * 8 + i) * 0x9e3779b9; }

}  // namespace

VITRUM_KERNEL __launch_bounds__(THREADS) peak_read(
    const __grid_constant__ PeakMemoryParams p, const __grid_constant__ LaunchInfo launch) {
    stamp_begin(launch);
    const uint4* from = static_cast<const uint4*>(p.from);
    const uint64_t words = p.bytes / sizeof(uint4), stride = grid_words();
    uint32_t found = 0;
    for (uint32_t round = 0; round < p.rounds; round++) {
        uint64_t at = first_word();
        for (; at + (LOADS - 1) * stride < words; at += LOADS * stride) {
            uint4 v[LOADS];
#pragma unroll
            for (uint32_t i = 0; i < LOADS; i++) v[i] = load_stream(from + at + i * stride);
#pragma unroll
            for (uint32_t i = 0; i < LOADS; i++) found |= v[i].x | v[i].y | v[i].z | v[i].w;
        }
        for (; at < words; at += stride) {
            const uint4 v = load_stream(from + at);
            found |= v.x | v.y | v.z | v.w;
        }
    }
    if (found != 0) *static_cast<uint32_t*>(p.to) = found;
    stamp_end(launch);
}

VITRUM_KERNEL __launch_bounds__(THREADS) peak_copy(
    const __grid_constant__ PeakMemoryParams p, const __grid_constant__ LaunchInfo launch) {
    stamp_begin(launch);
    const uint4* from = static_cast<const uint4*>(p.from);
    uint4* to = static_cast<uint4*>(p.to);
    const uint64_t words = p.bytes / sizeof(uint4), stride = grid_words();
    for (uint32_t round = 0; round < p.rounds; round++) {
        uint64_t at = first_word();
        for (; at + (LOADS - 1) * stride < words; at += LOADS * stride) {
            uint4 v[LOADS];
#pragma unroll
            for (uint32_t i = 0; i < LOADS; i++) v[i] = load_stream(from + at + i * stride);
#pragma unroll
            for (uint32_t i = 0; i < LOADS; i++) to[at + i * stride] = v[i];
        }
        for (; at < words; at += stride) to[at] = load_stream(from + at);
    }
    stamp_end(launch);
}

// A round: CHAINS products of 16 x 16 and 16 x 8 per warp.
VITRUM_KERNEL __launch_bounds__(THREADS) peak_bf16(
    const __grid_constant__ PeakMatrixParams p, const __grid_constant__ LaunchInfo launch) {
    stamp_begin(launch);
    const uint32_t a[4] = {some_bf16(0), some_bf16(1), some_bf16(2), some_bf16(3)};
    const uint32_t b[2] = {some_bf16(4), some_bf16(5)};
    float d[CHAINS][4] = {};
    for (uint32_t round = 0; round < p.rounds; round++) {
#pragma unroll
        for (uint32_t i = 0; i < CHAINS; i++) mma_bf16(d[i], a, b);
    }
    float sum = 0;
#pragma unroll
    for (uint32_t i = 0; i < CHAINS; i++) sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
    if (sum != sum) *p.out = 1;  // not a number: there is none among these
    stamp_end(launch);
}

// A round: CHAINS products of 16 x 32 and 32 x 8 per warp. Sums may overflow: they wrap.
VITRUM_KERNEL __launch_bounds__(THREADS) peak_int8(
    const __grid_constant__ PeakMatrixParams p, const __grid_constant__ LaunchInfo launch) {
    stamp_begin(launch);
    const uint32_t a[4] = {some_bytes(0), some_bytes(1), some_bytes(2), some_bytes(3)};
    const uint32_t b[2] = {some_bytes(4), some_bytes(5)};
    int32_t d[CHAINS][4] = {};
    for (uint32_t round = 0; round < p.rounds; round++) {
#pragma unroll
        for (uint32_t i = 0; i < CHAINS; i++) mma_s8(d[i], a, b);
    }
    // Equal chains: their differences are zeros, as the compiler does not know.
    uint32_t difference = 0;
#pragma unroll
    for (uint32_t i = 1; i < CHAINS; i++) {
#pragma unroll
        for (uint32_t k = 0; k < 4; k++) difference |= uint32_t(d[i][k]) ^ uint32_t(d[0][k]);
    }
    if (difference != 0) *p.out = difference;
    stamp_end(launch);
}
