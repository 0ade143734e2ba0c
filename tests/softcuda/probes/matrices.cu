// The matrix instructions, each fed by the layout that csrc/common/ptx.cuh states, one warp.
#include "../../../csrc/common/ptx.cuh"

// out (32 lanes, 4): what each lane receives of the 4 matrices (4, 8, 8) of 16-bit values, rows at 16 bytes.
template <bool TRANSPOSED>
__device__ void load_matrices_of(const uint4* in, uint32_t* out) {
    __shared__ uint4 rows[32];
    const uint32_t lane = threadIdx.x;
    pdl_wait();
    rows[lane] = in[lane];
    __syncwarp();
    uint32_t r[4];
    if (TRANSPOSED) load_matrices_transposed(r, &rows[lane]);
    else load_matrices(r, &rows[lane]);
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = r[i];
}

VITRUM_KERNEL matrices_straight(const uint4* in, uint32_t* out) { load_matrices_of<false>(in, out); }
VITRUM_KERNEL matrices_transposed(const uint4* in, uint32_t* out) { load_matrices_of<true>(in, out); }

// PER_WORD values from (row, column) on of a row-major matrix.
template <class T>
__device__ uint32_t word(const T* matrix, uint32_t stride, uint32_t row, uint32_t column) {
    uint32_t bits;
    memcpy(&bits, matrix + row * stride + column, 4);
    return bits;
}

// d (16, 8) += a (16, K) b, with b given as (8, K), its columns one after the other; K = 8 values per register.
template <class T, class Sum, class Multiply>
__device__ void product(const T* a, const T* b, Sum* d, Multiply multiply) {
    constexpr uint32_t PER_WORD = 4 / sizeof(T), K = 8 * PER_WORD;
    const uint32_t g = threadIdx.x / 4, t = threadIdx.x % 4;
    pdl_wait();
    const uint32_t ra[4] = {word(a, K, g, PER_WORD * t), word(a, K, g + 8, PER_WORD * t),
                            word(a, K, g, PER_WORD * t + K / 2), word(a, K, g + 8, PER_WORD * t + K / 2)};
    const uint32_t rb[2] = {word(b, K, g, PER_WORD * t), word(b, K, g, PER_WORD * t + K / 2)};
    Sum rd[4];
    for (int i = 0; i < 4; i++) rd[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    multiply(rd, ra, rb);
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = rd[i];
}

VITRUM_KERNEL product_bf16(const uint16_t* a, const uint16_t* b, float* d) { product(a, b, d, mma_bf16); }
VITRUM_KERNEL product_f16(const uint16_t* a, const uint16_t* b, float* d) { product(a, b, d, mma_f16); }
VITRUM_KERNEL product_s8(const int8_t* a, const int8_t* b, int32_t* d) { product(a, b, d, mma_s8); }

// The same product with operands by load_matrices: a (16, 16) and b (16, 8) row-major, so b transposed.
VITRUM_KERNEL product_loaded(const uint4* a, const uint4* b, float* d) {
    __shared__ uint4 ra[32], rb[16];
    const uint32_t lane = threadIdx.x, g = lane / 4, t = lane % 4;
    pdl_wait();
    ra[lane] = a[lane];  // two pieces of 8 values a row
    if (lane < 16) rb[lane] = b[lane];
    __syncwarp();
    // Matrices of a: rows 0 .. 7 and 8 .. 15 of the left half, then of the right half.
    uint32_t fa[4], fb[4];
    load_matrices(fa, &ra[(lane % 16) * 2 + lane / 16]);
    load_matrices_transposed(fb, &rb[lane % 16]);
    float rd[4] = {};
    mma_bf16(rd, fa, {fb[0], fb[1]});
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = rd[i];
}
