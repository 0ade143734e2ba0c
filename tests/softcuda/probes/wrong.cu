// Kernels with one fault each, and what they would be without it.
#include "../../../csrc/common/ptx.cuh"

// The block's part of `in` through shared memory; without `wait`, of copies that nobody has waited for.
template <bool WAIT>
__device__ void copy_through(const uint4* in, uint4* out) {
    __shared__ uint4 buffer[64];
    pdl_wait();
    copy_async(&buffer[threadIdx.x], &in[threadIdx.x]);
    copy_async_commit();
    if (WAIT) copy_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = buffer[63 - threadIdx.x];
}

VITRUM_KERNEL copy_waited(const uint4* in, uint4* out) { copy_through<true>(in, out); }
VITRUM_KERNEL __launch_bounds__(64)
    copy_not_waited(const uint4* in, uint4* out) { copy_through<false>(in, out); }

// out[i] = in[n - 1 - i] + step, for 4 steps through one buffer: a barrier before the read and one after it.
template <bool BEFORE, bool AFTER>
__device__ void exchange_steps(const uint32_t* in, uint32_t* out) {
    __shared__ uint32_t buffer[128];
    const uint32_t i = threadIdx.x, n = blockDim.x;
    pdl_wait();
    for (uint32_t step = 0; step < 4; step++) {
        buffer[i] = in[i] + step;
        if (BEFORE) __syncthreads();
        out[step * n + i] = buffer[n - 1 - i];
        if (AFTER) __syncthreads();
    }
}

VITRUM_KERNEL steps_right(const uint32_t* in, uint32_t* out) { exchange_steps<true, true>(in, out); }
VITRUM_KERNEL steps_no_barrier_before(const uint32_t* in, uint32_t* out) { exchange_steps<false, true>(in, out); }
VITRUM_KERNEL steps_no_barrier_after(const uint32_t* in, uint32_t* out) { exchange_steps<true, false>(in, out); }

// The first warp writes, the others read. In ascending order it comes out right.
VITRUM_KERNEL first_warp_writes(uint32_t* out) {
    __shared__ uint32_t value;
    pdl_wait();
    if (threadIdx.x == 0) value = 42;
    out[threadIdx.x] = value;
}

// The last block reads what the first has written, as if blocks came in order.
VITRUM_KERNEL blocks_in_order(uint32_t* cells) {
    pdl_wait();
    cells[blockIdx.x + 1] = cells[blockIdx.x] + 1;
}

VITRUM_KERNEL barrier_of_some(uint32_t* out) {
    pdl_wait();
    if (threadIdx.x < 40) __syncthreads();
    else out[threadIdx.x] = __shfl_xor_sync(0xffffffff, threadIdx.x, 1);
}

VITRUM_KERNEL barriers_of_two_lines() {
    pdl_wait();
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

VITRUM_KERNEL lanes_in_two_exchanges(uint32_t* out) {
    pdl_wait();
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(0xffffffff, threadIdx.x, 1);
    else out[threadIdx.x] = __ballot_sync(0xffffffff, 1);
}

VITRUM_KERNEL lane_outside_its_mask(uint32_t* out) {
    pdl_wait();
    out[threadIdx.x] = __shfl_sync(0xffff, threadIdx.x, 0);
}

VITRUM_KERNEL lane_that_takes_no_part(uint32_t* out) {
    pdl_wait();
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffff, threadIdx.x, 20);
}

VITRUM_KERNEL product_of_half_a_warp(float* out) {
    pdl_wait();
    if (threadIdx.x >= 16) return;
    float d[4] = {};
    mma_bf16(d, {0, 0, 0, 0}, {0, 0});
    out[threadIdx.x] = d[0];
}

// Blocks after the first leave at once.
VITRUM_KERNEL no_wait_where_it_leaves(uint32_t* out) {
    if (blockIdx.x == 1 && threadIdx.x == 5) return;
    pdl_wait();
    out[threadIdx.x] = 1;
}

// EARLY: reads what the kernel before writes, before that has ended.
template <bool EARLY>
__device__ void read_of_predecessor(const uint32_t* in, uint32_t* out) {
    uint32_t v = EARLY ? in[threadIdx.x] : 0;
    pdl_wait();
    if (!EARLY) v = in[threadIdx.x];
    out[threadIdx.x] = v;
}

VITRUM_KERNEL read_after_wait(const uint32_t* in, uint32_t* out) { read_of_predecessor<false>(in, out); }
VITRUM_KERNEL read_before_wait(const uint32_t* in, uint32_t* out) { read_of_predecessor<true>(in, out); }

// One copy of 16 bytes to byte `offset` of dynamic shared memory, from byte `from` of `in`.
VITRUM_KERNEL copy_to(const unsigned char* in, uint32_t offset, uint32_t from) {
    DYNAMIC_SHARED(unsigned char, buffer);
    pdl_wait();
    copy_async(buffer + offset, in + from);
    copy_async_commit();
    copy_async_wait<0>();
}

VITRUM_KERNEL read_address(uint64_t address, uint32_t* out) {
    pdl_wait();
    *out = *reinterpret_cast<const uint32_t*>(address);
}

VITRUM_KERNEL write_shared(uint32_t offset) {
    DYNAMIC_SHARED(unsigned char, buffer);
    pdl_wait();
    buffer[offset] = 1;
}

// Shared memory that nobody has written; `dynamic` is not empty.
VITRUM_KERNEL read_unwritten(uint32_t* out) {
    __shared__ uint32_t fixed[32];
    DYNAMIC_SHARED(uint32_t, dynamic);
    pdl_wait();
    out[0] = fixed[3] & dynamic[5];
    fixed[3] = dynamic[5] = 0;
}

// A frame of 100 kB, which does not fit.
VITRUM_KERNEL deep_stack(uint32_t* out) {
    volatile uint32_t large[25 << 10];
    pdl_wait();
    for (uint32_t i = 0; i < 25 << 10; i++) large[i] = i;
    out[0] = large[threadIdx.x];
}
