// Draws one token per row of logits: the largest, or temperature, top-k, top-p and the inverse of the distribution
// function. The order of everything, and so every token, is that of src/kernels/sample/cpu.rs, whose doc comment
// says what is drawn and what becomes of NaN and infinities.
//
// A block of 1024 threads has one row: grid = (bucket of logit rows). No dynamic shared memory.
//
// Nothing of a row's size is stored. Without a cut the running sum of the weights is kept at every 64th group of 64
// ids, and the groups behind one of those places are summed again. With a cut, the ids in descending order come as runs
// of at most MAX_KEYS, each found by counting digits of the keys, collected and sorted; as a rule there is one run.
// Sums in f64 are made by one thread: their order is their definition.
#include "common/exp.cuh"
#include "common/ptx.cuh"
#include "common/reduce.cuh"
#include "common/stamp.cuh"
#include "common/uniform.cuh"
#include "params.h"

namespace {

constexpr uint32_t THREADS = 1024, WARPS = THREADS / 32;
constexpr uint32_t GROUP = 64;             // ids whose weights are summed in f32
constexpr uint32_t GROUP_LANES = 16;       // lanes that share a group: ids i, i + 16, i + 32, i + 48 each
constexpr uint32_t MARK_GROUPS = THREADS / GROUP_LANES;  // groups from one kept running sum to the next
constexpr uint32_t MAX_MARKS = 512;        // of vocabularies of up to MAX_MARKS * MARK_GROUPS * GROUP = 2 097 152 ids
constexpr uint32_t TILE = 2048;            // groups summed, or weights made, or digits counted at a time
constexpr uint32_t MAX_KEYS = 4096;        // ids of a run
constexpr uint32_t FIRST_RUN = 256;        // ids that top-p looks for first; then 4 times as many, and so on
constexpr uint64_t NO_BOUND = ~uint64_t(0);
constexpr float SMALLEST = -3.40282347e+38f;  // the most negative finite number
static_assert(GROUP == 4 * GROUP_LANES && 32 == 2 * GROUP_LANES, "a warp takes two groups, a lane four ids");
static_assert(TILE % MARK_GROUPS == 0 && TILE == 64 * WARPS, "whole marks in a tile; 64 digits per warp");

struct Best {
    float logit;
    uint32_t id;
};

struct Choice {
    uint32_t digit;
    uint32_t before;   // keys with smaller digits
    uint32_t through;  // the same and this digit's
};

// What a walk through the ids in descending order has seen.
struct Walked {
    double sum;
    uint64_t last;  // key
    uint32_t count;
    bool ended;
};

struct Shared {
    uint64_t keys[MAX_KEYS];
    union {
        float sums[TILE];
        float weights[TILE];
        uint32_t digits[TILE];
    };
    double marks[MAX_MARKS];  // running sum of weights before group i * MARK_GROUPS
    union {
        Best best[WARPS];
        uint32_t counts[WARPS];
    };
    double total;
    double before_last;   // running sum before the last group that has any weight
    uint32_t last_group;  // that group
    Choice choice;
    uint32_t collected;
    Walked walked;
    uint32_t token;
};
static_assert(sizeof(Shared) <= 48 << 10, "static shared memory");

// One row's logits, and the run of its ids that is in shared memory.
struct Draw {
    Shared& s;
    const float* logits;  // (vocab)
    uint32_t vocab;
    float max;
    // Of the run: keys[0 .. count] in order are all keys from `begin` to `end`; the whole order goes on to `bound`.
    uint64_t begin, end, bound;
    uint32_t count;
};

// Ascending keys are descending logits; on a tie, ascending ids.
__device__ __forceinline__ uint64_t key_of(float logit, uint32_t id) {
    const uint32_t bits = bits_of(add(logit, 0.0f));  // -0 becomes 0: they tie
    const uint32_t ascending = bits >> 31 == 0 ? bits | 1u << 31 : ~bits;
    return uint64_t(~ascending) << 32 | id;
}

__device__ __forceinline__ uint32_t id_of(uint64_t key) { return static_cast<uint32_t>(key); }

__device__ __forceinline__ float logit_of(uint64_t key) {
    const uint32_t ascending = ~static_cast<uint32_t>(key >> 32);
    return float_of(ascending >> 31 == 1 ? ascending & ~(1u << 31) : ~ascending);
}

// e^((logit - max) / temperature); 0 for NaN
__device__ __forceinline__ float weight(float logit, float max, float temperature) {
    return exp_exactly(__fdiv_rn(sub(logit, max), temperature));
}

__device__ __forceinline__ Best better(Best a, Best b) {
    return b.logit > a.logit || (b.logit == a.logit && b.id < a.id) ? b : a;
}

__device__ __forceinline__ uint32_t warp_count(uint32_t value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
    return value;
}

// The largest logit and the first id that has it; -inf and 0 if there is nothing else than that and NaN.
__device__ Best largest(Shared& s, const float* logits, uint32_t vocab) {
    Best best = {-INFINITY, 0};
    const float4* fours = reinterpret_cast<const float4*>(logits);  // rows begin at multiples of 64 bytes
    const auto look = [&](float logit, uint32_t id) {
        if (logit > best.logit) best = {logit, id};
    };
#pragma unroll 8
    for (uint32_t i = threadIdx.x; i < vocab / 4; i += THREADS) {
        const float4 v = fours[i];
        look(v.x, 4 * i);
        look(v.y, 4 * i + 1);
        look(v.z, 4 * i + 2);
        look(v.w, 4 * i + 3);
    }
    const uint32_t rest = vocab / 4 * 4 + threadIdx.x;
    if (rest < vocab) look(logits[rest], rest);
    const auto exchange = [](Best b, int distance) {
        return Best{__shfl_xor_sync(ALL_LANES, b.logit, distance), __shfl_xor_sync(ALL_LANES, b.id, distance)};
    };
    for (int distance = 16; distance > 0; distance /= 2) best = better(best, exchange(best, distance));
    if (threadIdx.x % 32 == 0) s.best[threadIdx.x / 32] = best;
    __syncthreads();
    best = s.best[threadIdx.x % 32];
    for (int distance = 16; distance > 0; distance /= 2) best = better(best, exchange(best, distance));
    __syncthreads();
    return best;
}

// ---- all ids, ascending --------------------------------------------------------------------------------------------

// Sums of the weights of groups first .. first + count, into s.sums. All lanes of a half warp share a group.
__device__ void sum_groups(const Draw& d, float temperature, uint32_t first, uint32_t count) {
    const uint32_t lane = threadIdx.x % GROUP_LANES;
    for (uint32_t i = threadIdx.x / GROUP_LANES; i / 2 * 2 < count; i += MARK_GROUPS) {  // a warp goes or stays as one
        float sum = 0.0f;
#pragma unroll
        for (uint32_t part = 0; part < GROUP / GROUP_LANES; part++) {
            const uint32_t id = (first + i) * GROUP + part * GROUP_LANES + lane;
            if (i < count && id < d.vocab) sum = add(sum, weight(d.logits[id], d.max, temperature));
        }
#pragma unroll
        for (int distance = GROUP_LANES / 2; distance > 0; distance /= 2) {
            sum = add(sum, __shfl_xor_sync(ALL_LANES, sum, distance));
        }
        if (lane == 0 && i < count) d.s.sums[i] = sum;
    }
    __syncthreads();
}

// The sum of the weights of all ids; leaves the marks.
__device__ double sum_weights(const Draw& d, float temperature) {
    Shared& s = d.s;
    const uint32_t groups = (d.vocab + GROUP - 1) / GROUP;
    double total = 0.0;
    for (uint32_t first = 0; first < groups; first += TILE) {
        const uint32_t count = min(TILE, groups - first);
        sum_groups(d, temperature, first, count);
        if (threadIdx.x == 0) {
#pragma unroll 8
            for (uint32_t i = 0; i < count; i++) {
                if (i % MARK_GROUPS == 0) s.marks[(first + i) / MARK_GROUPS] = total;
                if (s.sums[i] > 0.0f) {
                    s.last_group = first + i;
                    s.before_last = total;
                }
                total += double(s.sums[i]);
            }
            s.total = total;
        }
        __syncthreads();
    }
    return s.total;
}

// The first id, ascending, at which the running sum of weights exceeds `target`; after sum_weights.
__device__ uint32_t walk_ids(const Draw& d, float temperature, double target) {
    Shared& s = d.s;
    const uint32_t groups = (d.vocab + GROUP - 1) / GROUP, marks = (groups + MARK_GROUPS - 1) / MARK_GROUPS;
    const bool found = s.total > target;
    // The first group to exceed it; by rounding there may be none, and then the last that has any weight.
    uint32_t group = s.last_group;
    double before = s.before_last;
    if (found) {
        uint32_t mark = 0;
        while (mark + 1 < marks && s.marks[mark + 1] <= target) mark++;
        const uint32_t first = mark * MARK_GROUPS, count = min(MARK_GROUPS, groups - first);
        sum_groups(d, temperature, first, count);
        double through = s.marks[mark];
        for (uint32_t i = 0; i < count && through <= target; i++) {
            if (s.sums[i] > 0.0f) {
                group = first + i;
                before = through;
                through += double(s.sums[i]);
            }
        }
        __syncthreads();
    }
    const uint32_t first = group * GROUP, ids = min(GROUP, d.vocab - first);
    if (threadIdx.x < ids) s.weights[threadIdx.x] = weight(d.logits[first + threadIdx.x], d.max, temperature);
    __syncthreads();
    uint32_t last = 0;
    for (uint32_t i = 0; i < ids && before <= target; i++) {
        if (s.weights[i] > 0.0f) {
            last = first + i;
            before += double(s.weights[i]);
        }
    }
    __syncthreads();
    return last;
}

// ---- ids in descending order ---------------------------------------------------------------------------------------

// Calls `each(key)` for the keys from `begin` to `end` of the row; NaN has none.
template <class Each>
__device__ __forceinline__ void for_keys(const Draw& d, uint64_t begin, uint64_t end, const Each& each) {
#pragma unroll 4
    for (uint32_t id = threadIdx.x; id < d.vocab; id += THREADS) {
        const float logit = d.logits[id];
        const uint64_t key = key_of(logit, id);
        if (logit == logit && key >= begin && key <= end) each(key);
    }
}

// Finds, among the counted digits, the first through which there are `want` keys, `base` counted; else the last digit.
__device__ Choice choose_digit(Shared& s, uint32_t base, uint32_t want) {
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const uint32_t count = warp_count(s.digits[64 * warp + lane] + s.digits[64 * warp + 32 + lane]);
    if (lane == 0) s.counts[warp] = count;
    __syncthreads();
    if (threadIdx.x == 0) {
        uint32_t through = base, of = 0;
        while (of + 1 < WARPS && through + s.counts[of] < want) through += s.counts[of++];
        Choice choice = {64 * of, through, through + s.digits[64 * of]};
        while (choice.through < want && choice.digit + 1 < 64 * (of + 1)) {
            choice.digit++;
            choice.before = choice.through;
            choice.through += s.digits[choice.digit];
        }
        s.choice = choice;
    }
    __syncthreads();
    return s.choice;
}

// A key up to which, from d.begin on, there are at least `want` keys (all, if there are fewer) and at most MAX_KEYS.
__device__ uint64_t find_end(const Draw& d, uint32_t want) {
    Shared& s = d.s;
    uint64_t prefix = 0;
    uint32_t base = 0;
    uint32_t above = 64;  // bits of the key from here on are those of the prefix
    while (true) {
        const uint32_t shift = above > 11 ? above - 11 : 0;
        const uint64_t last = above == 64 ? NO_BOUND : prefix + ((uint64_t(1) << above) - 1);
        for (uint32_t i = threadIdx.x; i < TILE; i += THREADS) s.digits[i] = 0;
        __syncthreads();
        for_keys(d, max(d.begin, prefix), min(d.bound, last), [&](uint64_t key) {
            atomicAdd(&s.digits[uint32_t((key - prefix) >> shift)], 1u);
        });
        __syncthreads();
        const Choice choice = choose_digit(s, base, want);
        const uint64_t digit_first = prefix + (uint64_t(choice.digit) << shift);
        const uint64_t digit_last = digit_first + ((uint64_t(1) << shift) - 1);
        if (choice.through < want) return d.bound;  // there are no more
        if (choice.through <= MAX_KEYS) return min(d.bound, digit_last);
        prefix = digit_first;
        base = choice.before;
        above = shift;
    }
}

// Sorts the first `count` keys, ascending: a bitonic network.
__device__ void sort_keys(Shared& s, uint32_t count) {
    uint32_t size = 1;
    while (size < count) size *= 2;
    for (uint32_t i = count + threadIdx.x; i < size; i += THREADS) s.keys[i] = NO_BOUND;
    __syncthreads();
    for (uint32_t length = 2; length <= size; length *= 2) {
        for (uint32_t distance = length / 2; distance > 0; distance /= 2) {
            for (uint32_t i = threadIdx.x; i < size / 2; i += THREADS) {
                const uint32_t low = i / distance * 2 * distance + i % distance, high = low + distance;
                const uint64_t a = s.keys[low], b = s.keys[high];
                if ((a > b) == ((low & length) == 0)) {
                    s.keys[low] = b;
                    s.keys[high] = a;
                }
            }
            __syncthreads();
        }
    }
}

// Loads the run that begins at d.begin, of at least `want` keys if there are as many.
__device__ void load_run(Draw& d, uint32_t want) {
    Shared& s = d.s;
    d.end = find_end(d, want);
    if (threadIdx.x == 0) s.collected = 0;
    __syncthreads();
    for_keys(d, d.begin, d.end, [&](uint64_t key) { s.keys[atomicAdd(&s.collected, 1u)] = key; });
    __syncthreads();
    d.count = s.collected;
    sort_keys(s, d.count);
}

// Adds up the weights of at most `limit` ids in descending order, up to d.bound, while `more` says so of the sum so
// far. `want`: how many ids it will probably take.
template <class More>
__device__ Walked walk_keys(Draw& d, float temperature, uint32_t limit, uint32_t want, const More& more) {
    Shared& s = d.s;
    want = min(want, MAX_KEYS);
    __syncthreads();  // all have read what the walk before left
    if (d.count == 0 || d.begin != 0) {
        d.begin = 0;
        load_run(d, want);
    }
    if (threadIdx.x == 0) s.walked = {0.0, 0, 0, false};
    while (true) {
        for (uint32_t first = 0; first < d.count; first += TILE) {
            const uint32_t count = min(TILE, d.count - first);
            for (uint32_t i = threadIdx.x; i < count; i += THREADS) {
                s.weights[i] = weight(logit_of(s.keys[first + i]), d.max, temperature);
            }
            __syncthreads();
            if (threadIdx.x == 0) {
                Walked w = s.walked;
                uint32_t i = 0;
                while (i < count && w.count < limit && more(w.sum)) {
                    w.sum += double(s.weights[i++]);
                    w.count++;
                }
                if (i > 0) w.last = s.keys[first + i - 1];
                w.ended = i < count;
                s.walked = w;
            }
            __syncthreads();
            if (s.walked.ended) return s.walked;
        }
        if (d.count == 0 || d.end >= d.bound) return s.walked;
        d.begin = d.end + 1;
        want = min(4 * want, MAX_KEYS);
        load_run(d, want);
    }
}

// Draws with a temperature; the largest logit is finite.
__device__ uint32_t draw_token(Draw& d, const SampleRow& how) {
    const float temperature = fminf(how.temperature, -SMALLEST);  // so that -inf / temperature is -inf
    const double u = uniform(how.seed, how.position);
    const bool cuts_k = how.top_k >= 1 && how.top_k < d.vocab, cuts_p = how.top_p < 1.0f;
    if (!cuts_k && !cuts_p) return walk_ids(d, temperature, u * sum_weights(d, temperature));
    const uint32_t limit = cuts_k ? how.top_k : d.vocab, want = cuts_k ? how.top_k : FIRST_RUN;
    d.bound = NO_BOUND;
    Walked kept;
    double mass;
    if (cuts_k) {
        kept = walk_keys(d, temperature, limit, want, [](double) { return true; });
        mass = kept.sum;
    } else {
        mass = sum_weights(d, temperature);
        // All ids below this weight together are less than what top-p leaves out, twice over.
        const double least = (1.0 - fmax(double(how.top_p), 0.0)) * mass / double(d.vocab) / 2.0;
        d.bound = key_of(static_cast<float>(double(d.max) + double(temperature) * log(least)), 0xffffffff);
    }
    if (cuts_p) {
        // The first is always kept, others while the share is not reached.
        const double share = double(how.top_p) * mass;
        kept = walk_keys(d, temperature, limit, want, [=](double before) { return before == 0.0 || before < share; });
    }
    const double target = u * kept.sum;
    return id_of(walk_keys(d, temperature, kept.count, want, [=](double through) { return through <= target; }).last);
}

// ---- log probabilities ---------------------------------------------------------------------------------------------

__device__ uint32_t count_larger(Shared& s, const float* logits, uint32_t vocab, float chosen) {
    uint32_t count = 0;
    for (uint32_t id = threadIdx.x; id < vocab; id += THREADS) count += logits[id] > chosen;
    count = warp_count(count);
    if (threadIdx.x % 32 == 0) s.counts[threadIdx.x / 32] = count;
    __syncthreads();
    return warp_count(s.counts[threadIdx.x % 32]);  // nobody writes there again before the next barrier
}

// Those of all ids, without temperature: the chosen one's and the largest.
__device__ void write_logprobs(Draw& d, uint32_t token, uint32_t alternatives, LogprobRow* out) {
    const float max = d.max;
    const double log_sum = isfinite(max) ? log(sum_weights(d, 1.0f)) : 0.0;
    // Never -inf or NaN, which JSON has no word for.
    const auto logprob = [=](float logit) {
        const double distance = logit == max ? 0.0 : double(logit) - double(max);
        return max == -INFINITY ? SMALLEST : fmaxf(static_cast<float>(distance - log_sum), SMALLEST);
    };
    const float chosen = d.logits[token];
    const uint32_t larger = count_larger(d.s, d.logits, d.vocab, chosen);
    uint32_t count = 0;
    alternatives = min(min(alternatives, VITRUM_MAX_LOGPROBS), d.vocab);
    if (alternatives > 0) {
        d.begin = 0;
        d.bound = NO_BOUND;
        load_run(d, alternatives);
        count = min(d.count, alternatives);
    }
    if (threadIdx.x == 0) {
        out->chosen = logprob(chosen);
        out->rank = 1 + larger;
    }
    if (threadIdx.x < VITRUM_MAX_LOGPROBS) {
        const bool is = threadIdx.x < count;
        out->ids[threadIdx.x] = is ? id_of(d.s.keys[threadIdx.x]) : 0;
        out->values[threadIdx.x] = is ? logprob(logit_of(d.s.keys[threadIdx.x])) : 0.0f;
    }
}

}  // namespace

VITRUM_KERNEL __launch_bounds__(THREADS) sample(
    const __grid_constant__ SampleParams p, const __grid_constant__ LaunchInfo launch) {
    __shared__ Shared s;
    pdl_trigger();
    pdl_wait();
    stamp_begin(launch);
    const uint32_t row = blockIdx.x;
    if (row < p.shape->logit_rows) {
        const SampleRow how = p.rows[row];
        const float* logits = p.logits + size_t(row) * p.stride;
        const Best top = largest(s, logits, p.vocab);
        Draw d = {s, logits, p.vocab, top.logit, 0, 0, NO_BOUND, 0};
        const bool draws = how.temperature > 0.0f && isfinite(top.logit);
        const uint32_t token = draws ? draw_token(d, how) : top.id;
        if (threadIdx.x == 0) {
            p.tokens[row] = token;
            p.slot_tokens[how.slot] = token;
        }
        if (how.logprobs > 0 && p.logprobs != nullptr) {
            write_logprobs(d, token, how.logprobs - 1, p.logprobs + row);
        }
    }
    stamp_end(launch);
}
