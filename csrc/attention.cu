// out = softmax(scale q K^T, cut by causality) V over the paged cache, grouped queries.
//
// Persistent: block b of the grid takes pieces b, b + gridDim.x, ...; a piece is an item of the work list x a KV head.
// The piece's queries, (row, head) with the heads of a row together, go through its chunks of 256 positions in passes
// of at most 64, that is 4 tiles of mma's 16 rows. A chunk of a pass is a `Unit`: the keys, then the values of the next
// unit are on their way to shared memory while this one is worked on, also from one piece to the next.
//
// Within a chunk each of the 8 warps scores 32 positions; maxima and sums go through shared memory, and so do the
// weights e^(score - max), rounded to f16: each warp then makes the sums over all positions for its own dimensions. So
// every number of a query is summed in an order that depends on its own position only: over the dimensions, over the
// positions ascending, over the chunks. What it does not see has weight 0, and values past the end are set to 0.
// Chunks meet in `fold` and nowhere else: in registers where a piece has all of them, from `partials` where they were
// split over pieces; the piece that arrives last does that. A result has the same bits either way.
//
// head_dim is the template's; heads / kv_heads <= 64, and their values whole blocks of 32 if a layer reads `next`.
// Launch: 256 threads; ATTENTION_SHARED_FIXED + head_dim * ATTENTION_SHARED_PER_DIM bytes of dynamic shared memory; any
// grid.
#include "common/attention.cuh"
#include "common/attention_work.cuh"
#include "common/exp.cuh"
#include "common/ptx.cuh"
#include "common/rows.cuh"
#include "common/stamp.cuh"
#include "params.h"

namespace {

// Sums of a pass, as a warp's lanes hold them: rows g and g + 8 of each tile, dimensions of the warp's own.
template <uint32_t DIM>
struct Sums {
    float out[PASS_TILES][Split<DIM>::WARP_TILES][4];
    float max[PASS_TILES][2];
    float sum[PASS_TILES][2];
};

using Scores = float[PASS_TILES][WARP_POSITIONS / 8][4];

// ---- loads ----------------------------------------------------------------------------------------------------------

template <uint32_t DIM>
__device__ __forceinline__ const uint16_t* page_of(const AttentionParams& p, const Unit& unit, const void* cache,
                                                   uint32_t page) {
    const uint32_t name = p.page_tables[size_t(unit.item.seq) * p.max_pages + unit.kv / PAGE + page];
    return static_cast<const uint16_t*>(cache) + (size_t(name) * p.kv_heads + unit.kv_head) * (PAGE * DIM);
}

// Starts to copy the unit's pages of keys: (DIM, PAGE) each.
template <uint32_t DIM>
__device__ __forceinline__ void load_keys(Shared<DIM>& s, const AttentionParams& p, const Unit& unit) {
    constexpr uint32_t PIECES = PAGE / 8;  // of 16 bytes in a row
    const uint32_t pages = (unit.count() + PAGE - 1) / PAGE;
    for (uint32_t i = threadIdx.x; i < pages * DIM * PIECES; i += THREADS) {
        const uint32_t page = i / (DIM * PIECES), at = i % (DIM * PIECES);
        copy_async(s.keys[page] + swizzled<PIECES>(at / PIECES, at % PIECES),
                   page_of<DIM>(p, unit, p.kv.k, page) + at * 8);
    }
}

// The same for values, (PAGE, DIM) each; zeros where the last page is not seen.
template <uint32_t DIM>
__device__ __forceinline__ void load_values(Shared<DIM>& s, const AttentionParams& p, const Unit& unit) {
    constexpr uint32_t PIECES = DIM / 8;
    const uint32_t count = unit.count(), pages = (count + PAGE - 1) / PAGE;
    for (uint32_t i = threadIdx.x; i < pages * PAGE * PIECES; i += THREADS) {
        const uint32_t page = i / (PAGE * PIECES), at = i % (PAGE * PIECES), row = at / PIECES;
        uint16_t* to = s.values[page] + swizzled<PIECES>(row, at % PIECES);
        if (page * PAGE + row < count) {
            copy_async(to, page_of<DIM>(p, unit, p.kv.v, page) + at * 8);
        } else {
            *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
        }
    }
}

// How many positions of the chunk each query sees.
template <uint32_t DIM>
__device__ __forceinline__ void load_seen(Shared<DIM>& s, const Work& work, const Unit& unit) {
    if (threadIdx.x >= PASS_QUERIES) return;
    uint32_t seen = 0;
    if (threadIdx.x < unit.rows * work.group) {
        const uint32_t end = min(unit.kv + unit.count(), work.p.positions[unit.row + threadIdx.x / work.group] + 1);
        seen = end > unit.kv ? end - unit.kv : 0;
    }
    s.seen[threadIdx.x] = seen;
}

// The pass's queries: scaled, as f16; zeros in the rest of the last tile.
template <uint32_t DIM>
__device__ __forceinline__ void load_queries(Shared<DIM>& s, const Work& work, const Unit& unit, uint32_t tiles) {
    const AttentionParams& p = work.p;
    const uint32_t queries = unit.rows * work.group;
    for (uint32_t i = threadIdx.x; i < tiles * TILE * (DIM / 2); i += THREADS) {
        const uint32_t query = i / (DIM / 2), d = i % (DIM / 2) * 2;
        float2 q = make_float2(0.0f, 0.0f);
        if (query < queries) {
            const uint32_t row = unit.row + query / work.group, head = unit.kv_head * work.group + query % work.group;
            q = *reinterpret_cast<const float2*>(p.q + (size_t(row) * p.heads + head) * DIM + d);
        }
        const uint32_t pair = f32_to_f16(mul(q.x, p.scale)) | uint32_t(f32_to_f16(mul(q.y, p.scale))) << 16;
        s.queries[(swizzled<DIM / 8>(query, d / 8) + d % 8) / 2] = pair;
    }
}

// ---- a chunk --------------------------------------------------------------------------------------------------------

// Scores of the warp's 32 positions.
template <uint32_t DIM>
__device__ __forceinline__ void score(const Shared<DIM>& s, uint32_t tiles, Scores& scores) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (uint32_t tile = 0; tile < PASS_TILES; tile++) {
#pragma unroll
        for (uint32_t i = 0; i < WARP_POSITIONS / 8 * 4; i++) scores[tile][i / 4][i % 4] = 0.0f;
    }
#pragma unroll
    for (uint32_t k = 0; k < DIM; k += 16) {
        uint32_t keys[WARP_PAGES][4];  // of each page: positions 0 .. 7, then 8 .. 15
#pragma unroll
        for (uint32_t page = 0; page < WARP_PAGES; page++) {
            load_matrices_transposed(keys[page], s.keys[warp * WARP_PAGES + page] +
                                                     swizzled<PAGE / 8>(k + lane % 16, lane / 16));
        }
#pragma unroll
        for (uint32_t tile = 0; tile < PASS_TILES; tile++) {
            if (tile >= tiles) break;
            uint32_t queries[4];
            load_matrices(queries, s.queries + swizzled<DIM / 8>(tile * TILE + lane % 16, k / 8 + lane / 16) / 2);
#pragma unroll
            for (uint32_t i = 0; i < WARP_POSITIONS / 8; i++) {
                const uint32_t b[2] = {keys[i / 2][i % 2 * 2], keys[i / 2][i % 2 * 2 + 1]};
                mma_f16(scores[tile][i], queries, b);
            }
        }
    }
}

// Leaves the largest visible score of the warp's positions, for each query.
template <uint32_t DIM>
__device__ __forceinline__ void find_maxima(Shared<DIM>& s, uint32_t tiles, const Scores& scores) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (uint32_t tile = 0; tile < PASS_TILES; tile++) {
        if (tile >= tiles) break;
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t query = tile * TILE + half * 8 + lane / 4, seen = s.seen[query];
            float max = -INFINITY;
#pragma unroll
            for (uint32_t i = 0; i < WARP_POSITIONS / 4; i++) {
                const uint32_t position = warp * WARP_POSITIONS + i / 2 * 8 + lane % 4 * 2 + i % 2;
                if (position < seen) max = fmaxf(max, scores[tile][i / 2][half * 2 + i % 2]);
            }
            max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, 1));
            max = fmaxf(max, __shfl_xor_sync(ALL_LANES, max, 2));
            if (lane % 4 == 0) s.maxima[warp][query] = max;
        }
    }
}

// Leaves the weights of the warp's positions and their sums; `max` becomes that of the whole chunk.
template <uint32_t DIM>
__device__ __forceinline__ void soften(Shared<DIM>& s, uint32_t tiles, const Scores& scores,
                                       float (&max)[PASS_TILES][2]) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (uint32_t tile = 0; tile < PASS_TILES; tile++) {
        if (tile >= tiles) break;
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t query = tile * TILE + half * 8 + lane / 4, seen = s.seen[query];
            float chunk_max = s.maxima[0][query];
#pragma unroll
            for (uint32_t w = 1; w < WARPS; w++) chunk_max = fmaxf(chunk_max, s.maxima[w][query]);
            max[tile][half] = chunk_max;
            float sum = 0.0f;
#pragma unroll
            for (uint32_t i = 0; i < WARP_POSITIONS / 8; i++) {
                const uint32_t position = warp * WARP_POSITIONS + i * 8 + lane % 4 * 2;
                const float* pair = &scores[tile][i][half * 2];
                const float low = position < seen ? exp_exactly(sub(pair[0], chunk_max)) : 0.0f;
                const float high = position + 1 < seen ? exp_exactly(sub(pair[1], chunk_max)) : 0.0f;
                const uint32_t rounded = f32_to_f16(low) | uint32_t(f32_to_f16(high)) << 16;
                s.weights[query][position / 2] = rounded;
                float used_low, used_high;
                f16_pair_to_f32(rounded, used_low, used_high);
                sum = add(add(sum, used_low), used_high);
            }
            sum = add(sum, __shfl_xor_sync(ALL_LANES, sum, 1));
            sum = add(sum, __shfl_xor_sync(ALL_LANES, sum, 2));
            if (lane % 4 == 0) s.sums[warp][query] = sum;
        }
    }
}

// Sums of weight * value over the chunk, for the warp's dimensions, and of the weights.
template <uint32_t DIM>
__device__ __forceinline__ void weigh(const Shared<DIM>& s, uint32_t tiles, uint32_t count, Sums<DIM>& part) {
    using D = Split<DIM>;
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32, pages = (count + PAGE - 1) / PAGE;
#pragma unroll
    for (uint32_t tile = 0; tile < PASS_TILES; tile++) {
#pragma unroll
        for (uint32_t i = 0; i < D::WARP_TILES * 4; i++) part.out[tile][i / 4][i % 4] = 0.0f;
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            float sum = 0.0f;
            if (tile < tiles) {
#pragma unroll
                for (uint32_t w = 0; w < WARPS; w++) sum = add(sum, s.sums[w][tile * TILE + half * 8 + lane / 4]);
            }
            part.sum[tile][half] = sum;
        }
    }
    if (warp * D::WARP_DIMS >= DIM) return;
    // A load of four matrices is 16 positions x 16 dimensions, or 32 positions x 8 dimensions.
    constexpr uint32_t LOAD_PAGES = 2 / D::WARP_TILES;
    for (uint32_t page = 0; page < pages; page += LOAD_PAGES) {
        uint32_t values[4];
        const uint32_t load_page = page + (LOAD_PAGES == 2 ? lane / 16 : 0);
        const uint32_t piece = warp * D::WARP_TILES + (LOAD_PAGES == 2 ? 0 : lane / 16);
        load_matrices_transposed(values, s.values[load_page] + swizzled<DIM / 8>(lane % 16, piece));
#pragma unroll
        for (uint32_t tile = 0; tile < PASS_TILES; tile++) {
            if (tile >= tiles) break;
#pragma unroll
            for (uint32_t i = 0; i < LOAD_PAGES; i++) {
                if (page + i >= pages) break;
                uint32_t weights[4];
                load_matrices(weights, &s.weights[tile * TILE + lane % 16][((page + i) * PAGE + lane / 16 * 8) / 2]);
#pragma unroll
                for (uint32_t t = 0; t < D::WARP_TILES; t++) {
                    const uint32_t b[2] = {values[2 * (i + t)], values[2 * (i + t) + 1]};
                    mma_f16(part.out[tile][t], weights, b);
                }
            }
        }
    }
}

// ---- between chunks, and after them ---------------------------------------------------------------------------------

struct Factors {
    float old_part, new_part;
};

// Adds a later chunk's maximum and sum to the total's; its values are to be added by `fold_value` with the result.
__device__ __forceinline__ Factors fold(float& total_max, float& total_sum, float max, float sum) {
    const float new_max = max > total_max ? max : total_max;
    const Factors f = {exp_exactly(sub(total_max, new_max)), exp_exactly(sub(max, new_max))};
    total_sum = add(mul(total_sum, f.old_part), mul(sum, f.new_part));
    total_max = new_max;
    return f;
}

__device__ __forceinline__ float fold_value(const Factors& f, float total, float part) {
    return fma_once(part, f.new_part, mul(total, f.old_part));
}

template <uint32_t DIM>
__device__ __forceinline__ void fold_all(const Shared<DIM>& s, uint32_t tiles, bool is_first, const Sums<DIM>& part,
                                         Sums<DIM>& total) {
    if (is_first) {
        total = part;
        return;
    }
#pragma unroll
    for (uint32_t tile = 0; tile < PASS_TILES; tile++) {
        if (tile >= tiles) break;
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            if (s.seen[tile * TILE + half * 8 + threadIdx.x % 32 / 4] == 0) continue;
            const Factors f = fold(total.max[tile][half], total.sum[tile][half], part.max[tile][half],
                                   part.sum[tile][half]);
#pragma unroll
            for (uint32_t i = 0; i < Split<DIM>::WARP_TILES * 2; i++) {
                float& value = total.out[tile][i / 2][half * 2 + i % 2];
                value = fold_value(f, value, part.out[tile][i / 2][half * 2 + i % 2]);
            }
        }
    }
}

// Calls `each(query, d, low, high, max, sum)` for this thread's sums: dimensions d and d + 1 of a query.
template <uint32_t DIM, class Each>
__device__ __forceinline__ void for_sums(const Sums<DIM>& total, uint32_t queries, const Each& each) {
    const uint32_t lane = threadIdx.x % 32, first = threadIdx.x / 32 * Split<DIM>::WARP_DIMS;
    if (first >= DIM) return;
#pragma unroll
    for (uint32_t tile = 0; tile < PASS_TILES; tile++) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint32_t query = tile * TILE + half * 8 + lane / 4;
            if (query >= queries) continue;
#pragma unroll
            for (uint32_t t = 0; t < Split<DIM>::WARP_TILES; t++) {
                const float* pair = &total.out[tile][t][half * 2];
                each(query, first + t * 8 + lane % 4 * 2, pair[0], pair[1], total.max[tile][half],
                     total.sum[tile][half]);
            }
        }
    }
}

// Where a slot's query of one head begins: (DIM) values, maximum, sum.
template <uint32_t DIM>
__device__ __forceinline__ float* partial_at(const AttentionParams& p, uint32_t slot, uint32_t head) {
    return p.partials + (size_t(slot) * p.heads + head) * (DIM + 2);
}

// s.results (rows, group * DIM) of these rows go where they are asked for.
template <uint32_t DIM>
__device__ __forceinline__ void write_results(const Shared<DIM>& s, const Work& work, uint32_t kv_head, uint32_t row,
                                              uint32_t rows) {
    const AttentionParams& p = work.p;
    const uint32_t width = work.group * DIM, all = p.heads * DIM;
    if (p.out != nullptr) {
        for (uint32_t i = threadIdx.x; i < rows * width; i += THREADS) {
            p.out[size_t(row + i / width) * all + kv_head * width + i % width] = s.results[i];
        }
    }
    if (p.next.rows == nullptr) return;
    const uint32_t blocks = width / VITRUM_QUANT_BLOCK;
    for (uint32_t block = threadIdx.x / 32; block < blocks; block += WARPS) {
        const NextBlock next(p.next, all, kv_head * blocks + block);
        for (uint32_t i = 0; i < rows; i++) {
            next.leave(row + i, s.results[i * width + block * VITRUM_QUANT_BLOCK + threadIdx.x % 32]);
        }
    }
}

// Folds the partial results of an item's rows, whose chunks have all arrived.
template <uint32_t DIM>
__device__ __forceinline__ void combine(Shared<DIM>& s, const Work& work, const AttentionItem& item, uint32_t kv_head) {
    const AttentionParams& p = work.p;
    const uint32_t pass = PASS_QUERIES / work.group;
    for (uint32_t first = 0; first < item.rows; first += pass) {
        const uint32_t row = item.row + first, rows = min(pass, item.rows - first);
        for (uint32_t i = threadIdx.x; i < rows * work.group * DIM; i += THREADS) {
            const uint32_t query = i / DIM, d = i % DIM, head = kv_head * work.group + query % work.group;
            const AttentionSplit split = p.splits[row + query / work.group];
            const float* part = partial_at<DIM>(p, split.first, head);
            float total = part[d], max = part[DIM], sum = part[DIM + 1];
            for (uint32_t chunk = 1; chunk < split.count; chunk++) {
                part = partial_at<DIM>(p, split.first + chunk * split.stride, head);
                const Factors f = fold(max, sum, part[DIM], part[DIM + 1]);
                total = fold_value(f, total, part[d]);
            }
            s.results[i] = mul(total, __frcp_rn(sum));
        }
        __syncthreads();
        write_results(s, work, kv_head, row, rows);
        __syncthreads();
    }
}

// A pass has ended that saw all chunks of its rows.
template <uint32_t DIM>
__device__ __forceinline__ void finish(Shared<DIM>& s, const Work& work, const Unit& unit, const Sums<DIM>& total) {
    __syncthreads();  // results lie where the weights did
    for_sums(total, unit.rows * work.group,
             [&](uint32_t query, uint32_t d, float low, float high, float, float sum) {
                 const float inverse = __frcp_rn(sum);
                 s.results[query * DIM + d] = mul(low, inverse);
                 s.results[query * DIM + d + 1] = mul(high, inverse);
             });
    __syncthreads();
    write_results(s, work, unit.kv_head, unit.row, unit.rows);
}

// A pass has ended that saw one chunk of its rows.
template <uint32_t DIM>
__device__ __forceinline__ void finish_part(Shared<DIM>& s, const Work& work, const Unit& unit,
                                            const Sums<DIM>& total) {
    const AttentionParams& p = work.p;
    for_sums(total, unit.rows * work.group,
             [&](uint32_t query, uint32_t d, float low, float high, float max, float sum) {
                 if (s.seen[query] == 0) return;
                 const uint32_t slot = unit.item.partial + unit.row - unit.item.row + query / work.group;
                 float* to = partial_at<DIM>(p, slot, unit.kv_head * work.group + query % work.group);
                 *reinterpret_cast<float2*>(to + d) = make_float2(low, high);
                 if (d == 0) *reinterpret_cast<float2*>(to + DIM) = make_float2(max, sum);
             });
    if (!unit.ends_piece()) return;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t* arrivals = p.arrivals + size_t(unit.item.row) * p.kv_heads + unit.kv_head;
        const uint32_t chunks = p.splits[unit.item.row + unit.item.rows - 1].count;
        s.arrived_last = atomicAdd(arrivals, 1u) + 1 == chunks;
        if (s.arrived_last) *arrivals = 0;
    }
    __syncthreads();
    if (!s.arrived_last) return;
    __threadfence();
    combine(s, work, unit.item, unit.kv_head);
}

template <uint32_t DIM>
__device__ __forceinline__ void attend(const AttentionParams& p) {
    DYNAMIC_SHARED(Shared<DIM>, shared);
    Shared<DIM>& s = *shared;
    const Work work = {p, p.shape->attention_items * p.kv_heads, p.heads / p.kv_heads};
    Unit unit;
    work.enter_piece(unit, blockIdx.x);
    if (!work.has(unit)) return;
    load_keys(s, p, unit);
    copy_async_commit();
    load_values(s, p, unit);
    copy_async_commit();
    Sums<DIM> total;
    while (work.has(unit)) {
        const Unit next = work.next(unit);
        const uint32_t tiles = (unit.rows * work.group + TILE - 1) / TILE, count = unit.count();
        if (unit.is_first()) load_queries(s, work, unit, tiles);
        load_seen(s, work, unit);
        copy_async_wait<1>();  // keys
        __syncthreads();
        Scores scores;
        Sums<DIM> part;
        if (threadIdx.x / 32 * WARP_POSITIONS < count) score(s, tiles, scores);
        find_maxima(s, tiles, scores);
        __syncthreads();
        if (work.has(next)) load_keys(s, p, next);
        copy_async_commit();
        soften(s, tiles, scores, part.max);
        copy_async_wait<1>();  // values
        __syncthreads();
        weigh(s, tiles, count, part);
        fold_all(s, tiles, unit.is_first(), part, total);
        if (unit.is_last()) {
            if (unit.item.partial == VITRUM_NO_PARTIAL) {
                finish(s, work, unit, total);
            } else {
                finish_part(s, work, unit, total);
            }
        }
        __syncthreads();
        if (work.has(next)) load_values(s, p, next);
        copy_async_commit();
        unit = next;
    }
}

}  // namespace

#define ATTENTION(DIM)                                                                                               \
    VITRUM_KERNEL __launch_bounds__(THREADS) attention_f16_d##DIM(const __grid_constant__ AttentionParams p,         \
                                                                  const __grid_constant__ LaunchInfo launch) {      \
        pdl_trigger();                                                                                               \
        pdl_wait();                                                                                                  \
        stamp_begin(launch);                                                                                         \
        attend<DIM>(p);                                                                                              \
        stamp_end(launch);                                                                                           \
    }

ATTENTION(16)
ATTENTION(32)
ATTENTION(48)
ATTENTION(64)
ATTENTION(80)
ATTENTION(96)
ATTENTION(112)
ATTENTION(128)
