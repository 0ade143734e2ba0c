// Kernels with one fault each, and what they would be without it.
#include "../../../csrc/common/ptx.cuh"

// The block's part of `in` through shared memory; without `wait`, of copies that nobody has waited for.
template <bool WAIT, bool OWN>
__device__ void copy_through(const uint4* in, uint4* out) {
    __shared__ uint4 buffer[64];
    pdl_wait();
    copy_async(&buffer[threadIdx.x], &in[threadIdx.x]);
    copy_async_commit();
    if (WAIT) copy_async_wait<0>();
    __syncthreads();
    out[threadIdx.x] = buffer[OWN ? threadIdx.x : 63 - threadIdx.x];
}

VITRUM_KERNEL copy_waited(const uint4* in, uint4* out) { copy_through<true, false>(in, out); }
VITRUM_KERNEL __launch_bounds__(64)
    copy_not_waited(const uint4* in, uint4* out) { copy_through<false, false>(in, out); }
VITRUM_KERNEL own_copy_not_waited(const uint4* in, uint4* out) { copy_through<false, true>(in, out); }

VITRUM_KERNEL copy_not_committed(const uint4* in, uint4* out) {
    __shared__ uint4 buffer[64];
    pdl_wait();
    copy_async(&buffer[threadIdx.x], &in[threadIdx.x]);
    copy_async_wait<0>();
    out[threadIdx.x] = buffer[threadIdx.x];
}

VITRUM_KERNEL copy_left_under_way(const uint4* in, uint4*) {
    __shared__ uint4 buffer[64];
    pdl_wait();
    copy_async(&buffer[threadIdx.x], &in[threadIdx.x]);
    copy_async_commit();
}

// Copies to what other threads may still read.
VITRUM_KERNEL copy_over_what_is_read(const uint4* in, uint4* out) {
    __shared__ uint4 buffer[64];
    pdl_wait();
    buffer[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = buffer[63 - threadIdx.x];
    copy_async(&buffer[threadIdx.x], &in[threadIdx.x]);
    copy_async_commit();
    copy_async_wait<0>();
}

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

// The same within each warp. A shuffle is no barrier.
enum class Between { SYNC, SHUFFLE };

template <Between BEFORE>
__device__ void exchange_lanes(const uint32_t* in, uint32_t* out) {
    __shared__ uint32_t buffer[128];
    const uint32_t i = threadIdx.x;
    pdl_wait();
    for (uint32_t step = 0; step < 4; step++) {
        buffer[i] = in[i] + step;
        if (BEFORE == Between::SYNC) __syncwarp();
        if (BEFORE == Between::SHUFFLE) __shfl_xor_sync(0xffffffff, i, 1);
        out[step * blockDim.x + i] = buffer[i ^ 31];
        __syncwarp();
    }
}

VITRUM_KERNEL lanes_right(const uint32_t* in, uint32_t* out) { exchange_lanes<Between::SYNC>(in, out); }
VITRUM_KERNEL lanes_no_barrier(const uint32_t* in, uint32_t* out) { exchange_lanes<Between::SHUFFLE>(in, out); }

// A barrier of a warp orders nothing between warps.
VITRUM_KERNEL warps_without_barrier(const uint32_t* in, uint32_t* out) {
    __shared__ uint32_t buffer[128];
    pdl_wait();
    buffer[threadIdx.x] = in[threadIdx.x];
    __syncwarp();
    out[threadIdx.x] = buffer[threadIdx.x ^ 32];
}

// The first warp writes, the others read. In ascending order it comes out right.
VITRUM_KERNEL first_warp_writes(const uint32_t*, uint32_t* out) {
    __shared__ uint32_t value;
    pdl_wait();
    if (threadIdx.x == 0) value = 42;
    out[threadIdx.x] = value;
}

// out[i] = how many threads there are.
template <bool BARRIER>
__device__ void count_threads(uint32_t* out) {
    __shared__ uint32_t count;
    pdl_wait();
    if (threadIdx.x == 0) count = 0;
    __syncthreads();
    atomicAdd(&count, 1u);
    if (BARRIER) __syncthreads();
    out[threadIdx.x] = count;
}

VITRUM_KERNEL count_right(const uint32_t*, uint32_t* out) { count_threads<true>(out); }
VITRUM_KERNEL count_read_too_early(const uint32_t*, uint32_t* out) { count_threads<false>(out); }

// A block reads what the one before has written, as if blocks came in order.
VITRUM_KERNEL blocks_in_order(const uint32_t*, uint32_t* cells) {
    pdl_wait();
    if (threadIdx.x == 0) cells[blockIdx.x + 1] = cells[blockIdx.x] + 1;
}

// Half of the threads read what others of their block have written to global memory.
template <bool BARRIER>
__device__ void exchange_in_global(uint32_t* out) {
    const uint32_t n = blockDim.x;
    pdl_wait();
    if (threadIdx.x >= n / 2) out[threadIdx.x] = threadIdx.x;
    if (BARRIER) __syncthreads();
    if (threadIdx.x < n / 2) out[threadIdx.x] = out[n - 1 - threadIdx.x];
}

VITRUM_KERNEL global_right(const uint32_t*, uint32_t* out) { exchange_in_global<true>(out); }
VITRUM_KERNEL global_no_barrier(const uint32_t*, uint32_t* out) { exchange_in_global<false>(out); }

// The block that arrives last at out[0] adds up in out[1] what all have written behind that.
template <bool FENCE_BEFORE, bool BARRIER, bool FENCE_AFTER>
__device__ void add_up_when_last(uint32_t* out) {
    __shared__ bool last;
    pdl_wait();
    uint32_t* values = out + 2;
    values[blockIdx.x * blockDim.x + threadIdx.x] = 1;
    if (FENCE_BEFORE) __threadfence();
    if (BARRIER) __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(&out[0], 1u) + 1 == gridDim.x;
    __syncthreads();
    if (!last) return;
    if (FENCE_AFTER) __threadfence();
    if (threadIdx.x != 33) return;
    uint32_t sum = 0;
    for (uint32_t i = 0; i < gridDim.x * blockDim.x; i++) sum += values[i];
    out[1] = sum;
}

VITRUM_KERNEL last_right(const uint32_t*, uint32_t* out) { add_up_when_last<true, true, true>(out); }
VITRUM_KERNEL last_no_fence_before(const uint32_t*, uint32_t* out) { add_up_when_last<false, true, true>(out); }
VITRUM_KERNEL last_no_barrier(const uint32_t*, uint32_t* out) { add_up_when_last<true, false, true>(out); }
VITRUM_KERNEL last_no_fence_after(const uint32_t*, uint32_t* out) { add_up_when_last<true, true, false>(out); }

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
    out[blockIdx.x * blockDim.x + threadIdx.x] = 1;
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
    out[blockIdx.x] = fixed[3] & dynamic[5];
    fixed[3] = dynamic[5] = 0;
}

// A frame of 100 kB, which does not fit.
VITRUM_KERNEL deep_stack(uint32_t* out) {
    volatile uint32_t large[25 << 10];
    pdl_wait();
    for (uint32_t i = 0; i < 25 << 10; i++) large[i] = i;
    out[0] = large[threadIdx.x];
}
