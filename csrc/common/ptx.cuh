// Every PTX instruction that the kernels use, each behind one function.
//
// Kernels hold no inline assembly. So the same .cu files compile for the host, where tests/softcuda/simt gives these
// functions the meaning that the PTX ISA gives the instructions (docs.nvidia.com/cuda/parallel-thread-execution).
#pragma once
#include <stdint.h>

#if defined(__CUDACC__)

#define VITRUM_KERNEL extern "C" __global__ void

// The block's dynamic shared memory as `type* name`.
#define DYNAMIC_SHARED(type, name)                                     \
    extern __shared__ __align__(128) unsigned char dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(dynamic_shared)

// ---- programmatic dependent launch ----------------------------------------------------------------------------------

// The next kernel of the chain may start: its blocks take whatever room this kernel leaves.
__device__ __forceinline__ void pdl_trigger() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Returns when the kernel before has ended and its writes are visible. Every thread of every block calls it, before its
// first read of anything that a kernel of the chain writes, and in any case before it returns.
__device__ __forceinline__ void pdl_wait() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// ---- memory ---------------------------------------------------------------------------------------------------------

// 16 bytes that are read once: they displace little in the caches. Never for what a kernel of the chain writes.
__device__ __forceinline__ uint4 load_stream(const void* from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Starts to copy 16 bytes to shared memory; the copy is in the group that the next commit closes.
__device__ __forceinline__ void copy_async(void* shared, const void* global) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}

__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most N of this thread's groups are under way.
template <int N>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// ---- f16 ------------------------------------------------------------------------------------------------------------

// The two f16 of a word, the low one first. Exact.
__device__ __forceinline__ void f16_pair_to_f32(uint32_t pair, float& low, float& high) {
    asm("{.reg .b16 l, h;\n mov.b32 {l, h}, %2;\n cvt.f32.f16 %0, l;\n cvt.f32.f16 %1, h;}"
        : "=f"(low), "=f"(high)
        : "r"(pair));
}

// To the nearest, ties to even; beyond the largest: infinity.
__device__ __forceinline__ uint16_t f32_to_f16(float value) {
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// ---- matrices -------------------------------------------------------------------------------------------------------

// Four 8 x 8 matrices of 16-bit values: lane l gives the address of row l % 8 of matrix l / 8, and receives of each
// matrix the values 2 (l % 4), + 1 of row l / 4.
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], const void* shared_row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared_row))
                 : "memory");
}

// The same, each matrix transposed: lane l receives the values of column l / 4 in rows 2 (l % 4), + 1.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], const void* shared_row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared_row))
                 : "memory");
}

// d += a (16 x 16) b (16 x 8), bf16, sums in f32. With g = lane / 4, t = lane % 4 a lane holds
//   a[0]: row g, columns 2t, 2t + 1; a[1]: row g + 8; a[2]: row g, columns 2t + 8, 2t + 9; a[3]: row g + 8 of those;
//   b[0]: column g, rows 2t, 2t + 1; b[1]: rows 2t + 8, 2t + 9;
//   d[0], d[1]: row g, columns 2t, 2t + 1; d[2], d[3]: row g + 8.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same for f16.
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a (16 x 32) b (32 x 8), signed bytes, sums in i32. With g = lane / 4, t = lane % 4 a lane holds
//   a[0]: row g, columns 4t .. 4t + 3; a[1]: row g + 8; a[2]: row g, columns 4t + 16 ..; a[3]: row g + 8 of those;
//   b[0]: column g, rows 4t .. 4t + 3; b[1]: rows 4t + 16 ..; d as for bf16.
__device__ __forceinline__ void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// ---- time -----------------------------------------------------------------------------------------------------------

// The device's clock in nanoseconds, the same on all multiprocessors.
__device__ __forceinline__ uint64_t global_timer_ns() {
    uint64_t ns;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns)::"memory");
    return ns;
}

#endif  // __CUDACC__
