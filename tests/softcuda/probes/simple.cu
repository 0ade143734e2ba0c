// Kernels that do what they should with threads, shared memory, lanes and atomics.
#include "../../../csrc/common/ptx.cuh"

// out[b] = the sum of the block's part of `in`
VITRUM_KERNEL block_sum(const int32_t* in, int32_t* out) {
    __shared__ int32_t warp_sums[32];
    pdl_trigger();
    pdl_wait();
    int32_t v = in[blockIdx.x * blockDim.x + threadIdx.x];
    for (int bits = 16; bits > 0; bits /= 2) v += __shfl_xor_sync(0xffffffff, v, bits);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = v;
    __syncthreads();
    int32_t sum = 0;
    for (unsigned w = 0; w < blockDim.x / 32; w++) sum += warp_sums[w];
    if (threadIdx.x == 0) out[blockIdx.x] = sum;
}

// Grid and block of three dimensions: each thread writes its own number, times 2.
VITRUM_KERNEL numbering(uint32_t* out) {
    pdl_wait();
    const dim3 b = blockIdx, t = threadIdx;
    const uint32_t block = (b.z * gridDim.y + b.y) * gridDim.x + b.x;
    const uint32_t thread = (t.z * blockDim.y + t.y) * blockDim.x + t.x;
    const uint32_t i = block * blockDim.x * blockDim.y * blockDim.z + thread;
    out[i] += 2 * i;
}

// out (12, 32 lanes): what each lane gets of the lane numbers, or of a predicate.
VITRUM_KERNEL lanes(uint32_t* out) {
    pdl_wait();
    const uint32_t all = 0xffffffff, lane = threadIdx.x;
    uint32_t row = 0;
    auto put = [&](uint32_t value) { out[row++ * 32 + lane] = value; };
    put(__shfl_sync(all, lane, 5));
    put(__shfl_sync(all, lane, 3, 8));
    put(__shfl_xor_sync(all, lane, 9));
    put(__shfl_down_sync(all, lane, 3));
    put(__shfl_up_sync(all, lane, 3));
    put(__shfl_down_sync(all, lane, 3, 16));
    put(__ballot_sync(all, lane % 3 == 0));
    put(__any_sync(all, lane == 31) * 2 + __any_sync(all, lane == 32));
    put(__all_sync(all, lane < 32) * 2 + __all_sync(all, lane < 31));
    put(__reduce_add_sync(all, lane));
    put(__match_any_sync(all, lane / 4));
    // Halves of the warp, a different number of times: they go on together afterwards.
    uint32_t sum = lane;
    for (uint32_t i = 0; i < 1 + lane / 16; i++) sum += __shfl_xor_sync(lane < 16 ? 0xffffu : 0xffff0000u, sum, 1);
    __syncwarp();
    put(__shfl_xor_sync(all, sum, 16));
}

// Threads of half the last warp leave before the barriers; out[0..3] = count, or, and of a predicate.
VITRUM_KERNEL barriers(uint32_t* out) {
    pdl_wait();
    if (threadIdx.x >= blockDim.x - 16) return;
    const uint32_t count = __syncthreads_count(threadIdx.x < 40);
    const uint32_t any = __syncthreads_or(threadIdx.x == 7) * 2 + __syncthreads_or(threadIdx.x > 1000);
    const uint32_t every = __syncthreads_and(threadIdx.x < 1000) * 2 + __syncthreads_and(threadIdx.x != 7);
    if (threadIdx.x == 3) out[0] = count, out[1] = any, out[2] = every;
}

struct Counters {
    unsigned long long sum, largest;
    uint32_t count, largest_small, smallest, bits, arrived, last;
    float real;
    int32_t swapped;
};

// Every thread adds to all; the last block to arrive says which it is.
VITRUM_KERNEL atomics(Counters* c) {
    __shared__ uint32_t before;
    pdl_wait();
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&c->sum, 1ull << 33);
    atomicMax(&c->largest, ~0ull - i);
    atomicAdd(&c->count, 1);
    atomicAdd(&c->real, 0.5f);
    atomicMax(&c->largest_small, i);
    atomicMin(&c->smallest, 7 + i);
    atomicOr(&c->bits, 1u << (i % 32));
    if (i == 9) atomicExch(&c->swapped, -1);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) before = atomicAdd(&c->arrived, 1u);
    __syncthreads();
    if (before == gridDim.x - 1 && threadIdx.x == 0) c->last = atomicCAS(&c->last, 0u, blockIdx.x + 1) + blockIdx.x + 1;
}

// Reverses the block's part through dynamic shared memory, with asynchronous copies of 16 bytes in two groups.
VITRUM_KERNEL reverse(const uint4* in, uint4* out) {
    DYNAMIC_SHARED(uint4, buffer);
    const uint32_t n = blockDim.x, first = blockIdx.x * 2 * n;
    pdl_wait();
    copy_async(&buffer[threadIdx.x], &in[first + threadIdx.x]);
    copy_async_commit();
    copy_async(&buffer[n + threadIdx.x], &in[first + n + threadIdx.x]);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    out[first + 2 * n - 1 - threadIdx.x] = buffer[threadIdx.x];
    copy_async_wait<0>();
    __syncthreads();
    out[first + n - 1 - threadIdx.x] = buffer[2 * n - 1 - (n - 1 - threadIdx.x)];
}

// What load_stream reads, and whether the clock goes on.
VITRUM_KERNEL stream_and_clock(const uint4* in, uint4* out, uint64_t* times) {
    const uint64_t begin = global_timer_ns();
    const uint4 v = load_stream(in + threadIdx.x);
    pdl_wait();
    out[threadIdx.x] = v;
    if (threadIdx.x == 0) times[0] = begin, times[1] = global_timer_ns();
}
