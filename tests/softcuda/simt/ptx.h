// The functions of csrc/common/ptx.cuh, with the meaning that the PTX ISA gives the instructions. Those that take long
// are in ptx.cc: compiled once for all kernels, and not watched for races but where it says so.
#pragma once
#include <time.h>

// ---- programmatic dependent launch ----------------------------------------------------------------------------------

inline void pdl_trigger() {}

inline void pdl_wait() {
    simt::Thread* me = simt::current;
    me->waited = true;
    if (!me->block->predecessor_ended) simt::wait_for(simt::Wait::Predecessor);
}

namespace simt {

// For `cargo xtask soak`, in the place of pdl_wait: the thread waits when it returns.
inline void pdl_wait_at_the_end() { current->waits_at_the_end = true; }

}  // namespace simt

// ---- memory ---------------------------------------------------------------------------------------------------------

inline uint4 load_stream(const void* from) {
    simt::check_global("load_stream", from, 16);
    uint4 v;
    memcpy(&v, from, sizeof v);
    return v;
}

namespace simt {

void wait_for_copies(uint32_t groups_left);

}  // namespace simt

void copy_async(void* shared, const void* global);
void copy_async_commit();

template <int N>
inline void copy_async_wait() {
    simt::wait_for_copies(N);
}

// ---- f16 ------------------------------------------------------------------------------------------------------------

inline void f16_pair_to_f32(uint32_t pair, float& low, float& high) {
    low = simt::half_to_float(uint16_t(pair));
    high = simt::half_to_float(uint16_t(pair >> 16));
}

inline uint16_t f32_to_f16(float value) { return simt::float_to_half(value); }

// ---- matrices -------------------------------------------------------------------------------------------------------

void load_matrices(uint32_t (&r)[4], const void* shared_row);
void load_matrices_transposed(uint32_t (&r)[4], const void* shared_row);
void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);
void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

// ---- time -----------------------------------------------------------------------------------------------------------

inline uint64_t global_timer_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return uint64_t(now.tv_sec) * 1000000000u + uint64_t(now.tv_nsec);
}
