// Conversions and intrinsics.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "../../../csrc/common/ptx.cuh"

// Of each 16-bit pattern i: the f32 bits as f16 and as bf16. Of floats in[i]: their f16 and bf16 bits.
VITRUM_KERNEL conversions(const float* in, float* from_half, float* from_bf16, uint16_t* to_half, uint16_t* to_bf16) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    pdl_wait();
    from_half[i] = __half2float(__ushort_as_half(uint16_t(i)));
    from_bf16[i] = __bfloat162float(__ushort_as_bfloat16(uint16_t(i)));
    to_half[i] = __half_as_ushort(__float2half_rn(in[i]));
    to_bf16[i] = __bfloat16_as_ushort(__float2bfloat16_rn(in[i]));
}

VITRUM_KERNEL intrinsics(int32_t* out) {
    pdl_wait();
    *out++ = __popc(0xf0f0u);
    *out++ = __clz(1);
    *out++ = __ffs(8);
    *out++ = int32_t(__brev(1));
    *out++ = int32_t(__umulhi(0x80000000u, 6));
    *out++ = int32_t(__byte_perm(0x33221100, 0x77665544, 0x7250));
    *out++ = __dp4a(int32_t(0xff020304), 0x01010101, 10);
    *out++ = int32_t(__vsub4(0x10203040, 0x08080841));
    *out++ = __float2int_rn(2.5f);
    *out++ = __float2int_rn(-3.5f);
    *out++ = __float2int_rz(-3.9f);
    *out++ = __float2int_rn(1e20f);
    *out++ = __float2int_rn(NAN);
    *out++ = int32_t(min(3u, 7));
    *out++ = int32_t(max(-1.5f, 2));
    *out++ = int32_t(__funnelshift_r(0x11223344, 0x55667788, 8));
    *out++ = int32_t(__saturatef(3.0f) + __saturatef(-1.0f) + __fmaf_rn(2.0f, 3.0f, 4.0f));
}
