// Those of the functions of csrc/common/ptx.cuh that take long.
#include "simt.h"

// ---- asynchronous copies --------------------------------------------------------------------------------------------

void copy_async(void* shared, const void* global) {
    using namespace simt;
    check_shared("copy_async", shared, 16);
    check_global("copy_async", global, 16);
    watch(global, 16, Access::Read);
    watch(shared, 16, Access::CopyBegins);
    Thread* me = current;
    if (me->copies_pending == COPIES_MAX) fail("copy_async: %u copies of one thread", COPIES_MAX);
    if (!me->block->launch->copies_late) memcpy(shared, global, 16);
    me->copies[me->copies_pending++] = {shared, global, me->groups_committed};
}

void copy_async_commit() { simt::current->groups_committed++; }

// Ends the copies of all groups but the last ones. Those that no commit has closed are in no group yet.
void simt::wait_for_copies(uint32_t groups_left) {
    Thread* me = current;
    unsigned kept = 0;
    for (unsigned i = 0; i < me->copies_pending; i++) {
        const Copy copy = me->copies[i];
        if (copy.group + groups_left >= me->groups_committed) {
            me->copies[kept++] = copy;
            continue;
        }
        if (me->block->launch->copies_late) memcpy(copy.to, copy.from, 16);
        watch(copy.to, 16, Access::CopyEnds);
    }
    me->copies_pending = kept;
}

// ---- matrices -------------------------------------------------------------------------------------------------------

namespace simt {

struct Four {
    uint32_t r[4];
};

// Lane l gives the address of row l % 8 of matrix l / 8. `element(matrix, row, column)` reads one value.
template <bool TRANSPOSED>
inline void matrices_of_lanes(Thread* lanes, uint32_t) {
    auto element = [&](unsigned matrix, unsigned row, unsigned column) {
        uint16_t value;
        memcpy(&value, given<const char*>(lanes[matrix * 8 + row]) + 2 * column, sizeof value);
        return uint32_t(value);
    };
    for (unsigned lane = 0; lane < WARP_LANES; lane++) {
        const unsigned g = lane / 4, t = lane % 4 * 2;
        Four out;
        for (unsigned m = 0; m < 4; m++) {
            const uint32_t low = TRANSPOSED ? element(m, t, g) : element(m, g, t);
            const uint32_t high = TRANSPOSED ? element(m, t + 1, g) : element(m, g, t + 1);
            out.r[m] = low | high << 16;
        }
        receive(lanes[lane], out);
    }
}

template <bool TRANSPOSED>
void load_matrices_of(uint32_t (&r)[4], const void* row) {
    check_shared("load_matrices", row, 16);
    watch(row, 16, Access::Read);
    const Four out = exchange<Four>("load_matrices", 0xffffffff, row, matrices_of_lanes<TRANSPOSED>, true);
    memcpy(r, out.r, sizeof r);
}

// What one lane gives to d (16, 8) += a (16, K) b (K, 8), A being the type of sums.
template <class Sum>
struct Product {
    Sum d[4];
    uint32_t a[4];
    uint32_t b[2];
};

// `value(bits, i)`: value i of the PER_WORD in a register. K = 8 PER_WORD. Sums are over ascending columns of a, where
// a device has an order of its own for floats.
template <class Sum, unsigned PER_WORD, class Value>
inline void multiply(Thread* lanes, Value value) {
    constexpr unsigned K = 8 * PER_WORD;
    Sum a[16][K], b[8][K];
    for (unsigned lane = 0; lane < WARP_LANES; lane++) {
        const Product<Sum> in = given<Product<Sum>>(lanes[lane]);
        const unsigned g = lane / 4, t = lane % 4 * PER_WORD;
        for (unsigned i = 0; i < PER_WORD; i++) {
            a[g][t + i] = value(in.a[0], i);
            a[g + 8][t + i] = value(in.a[1], i);
            a[g][t + K / 2 + i] = value(in.a[2], i);
            a[g + 8][t + K / 2 + i] = value(in.a[3], i);
            b[g][t + i] = value(in.b[0], i);
            b[g][t + K / 2 + i] = value(in.b[1], i);
        }
    }
    for (unsigned lane = 0; lane < WARP_LANES; lane++) {
        const unsigned g = lane / 4, t = lane % 4 * 2;
        Product<Sum> in = given<Product<Sum>>(lanes[lane]);
        for (unsigned i = 0; i < 4; i++) {
            const unsigned row = g + i / 2 * 8, column = t + i % 2;
            Sum sum = 0;
            for (unsigned k = 0; k < K; k++) sum += a[row][k] * b[column][k];
            in.d[i] += sum;
        }
        receive(lanes[lane], in.d);
    }
}

template <class Sum, unsigned PER_WORD, class Value>
void mma(const char* what, Sum (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Value value) {
    Product<Sum> mine;
    memcpy(mine.d, d, sizeof d);
    memcpy(mine.a, a, sizeof a);
    memcpy(mine.b, b, sizeof b);
    const auto compute = [=](Thread* lanes, uint32_t) { multiply<Sum, PER_WORD>(lanes, value); };
    const Four out = exchange<Four>(what, 0xffffffff, mine, compute, true);
    memcpy(d, out.r, sizeof d);
}

}  // namespace simt

void load_matrices(uint32_t (&r)[4], const void* shared_row) { simt::load_matrices_of<false>(r, shared_row); }

void load_matrices_transposed(uint32_t (&r)[4], const void* shared_row) {
    simt::load_matrices_of<true>(r, shared_row);
}

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    simt::mma<float, 2>("mma_bf16", d, a, b, [](uint32_t word, unsigned i) {
        return simt::bf16_to_float(uint16_t(word >> (16 * i)));
    });
}

void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    simt::mma<float, 2>("mma_f16", d, a, b, [](uint32_t word, unsigned i) {
        return simt::half_to_float(uint16_t(word >> (16 * i)));
    });
}

void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    simt::mma<int32_t, 4>("mma_s8", d, a, b, [](uint32_t word, unsigned i) {
        return int32_t(int8_t(word >> (8 * i)));
    });
}
