// The contract between the host and the kernels: one parameter struct per kernel, in fixed-width types.
//
// A CUDA kernel takes its struct by value (`const __grid_constant__ NormQkvParams p`); the CPU kernel of the same name
// takes the same struct, through the Rust twin that `cargo xtask bindings` generates (src/kernels/params.rs).
// A `DEVPTR(T)` is a device address: a pointer in device code, a `DevicePtr<T>` in Rust, else a 64-bit integer.
//
// Shapes are written (rows, columns), row-major. "tokens", "seqs" and "logit_rows" are the true sizes of the step, read
// from StepShape on the device; a graph's bucket only bounds them.
#pragma once
#include <stdint.h>

#if defined(__CUDACC__) || defined(VITRUM_DEVICE_CODE)
#define DEVPTR(T) T*
#elif defined(VITRUM_BINDINGS)
template <class T>
struct DevicePtr {
    uint64_t addr;
};
#define DEVPTR(T) DevicePtr<T>
#else
#define DEVPTR(T) uint64_t
#endif

// ---- constants that host and kernels share -------------------------------------------------------------------------

static const uint32_t VITRUM_PAGE_TOKENS = 16;  // KV positions per page; also the vector width of the attention kernels
static const uint32_t VITRUM_KV_CHUNK_TOKENS = 256;  // KV positions per attention chunk; chunks combine in order
static const uint32_t VITRUM_QUANT_BLOCK = 32;  // weights (and int8 activations) per scale
static const uint32_t VITRUM_MAX_LOGPROBS = 20;  // the most alternatives a sampled token can carry
static const uint32_t VITRUM_ATTENTION_SHARED_FIXED = 38272;   // bytes of shared memory of attention's CUDA blocks,
static const uint32_t VITRUM_ATTENTION_SHARED_PER_DIM = 1152;  // and so many more for each value of a head
static const uint32_t VITRUM_LINEAR_WIDE_SHARED = 99584;  // dynamic shared memory of a linear kernel's wide blocks
static const uint32_t VITRUM_PEAK_MATRIX_CHAINS = 8;  // products of a warp under way at once, where peaks are measured
static_assert(VITRUM_KV_CHUNK_TOKENS % VITRUM_PAGE_TOKENS == 0, "a KV chunk is a whole number of pages");

// How a packed weight or a KV cache is stored.
static const uint32_t VITRUM_FORMAT_F32 = 0;
static const uint32_t VITRUM_FORMAT_F16 = 1;
static const uint32_t VITRUM_FORMAT_BF16 = 2;
static const uint32_t VITRUM_FORMAT_Q8_0 = 3;
static const uint32_t VITRUM_FORMAT_Q4_0 = 4;
static const uint32_t VITRUM_FORMAT_Q4_1 = 5;

// How a linear layer reads its input: as it is; quantised to int8 with one scale per 32 values; rounded to bf16 (bf16
// weights, where the processor has a bf16 dot product); or quantised to int8 twice, the second time what the first
// rounding left, in steps of scale / 254: about 16 bits.
static const uint32_t VITRUM_ACTIVATIONS_F32 = 0;
static const uint32_t VITRUM_ACTIVATIONS_INT8 = 1;
static const uint32_t VITRUM_ACTIVATIONS_BF16 = 2;
static const uint32_t VITRUM_ACTIVATIONS_INT8X2 = 3;

// `AttentionItem::partial` of an item that covers all positions of its rows.
static const uint32_t VITRUM_NO_PARTIAL = 0xffffffff;

// ---- pieces ---------------------------------------------------------------------------------------------------------

// The true sizes of one step.
typedef struct StepShape {
    uint32_t tokens;            // rows of the forward graph
    uint32_t seqs;              // sequences, that is rows of page_tables
    uint32_t logit_rows;        // rows of the sample graph
    uint32_t attention_items;   // entries of the attention work list
    uint32_t attention_splits;  // slots of partial results that they write; 0: nothing to combine
    uint32_t reserved[3];
} StepShape;
static_assert(sizeof(StepShape) == 32, "StepShape");

// A packed weight matrix (rows, cols), rows = outputs. The packed layout belongs to the device.
typedef struct WeightRef {
    DEVPTR(const void) data;
    uint32_t rows;
    uint32_t cols;
    uint32_t format;       // VITRUM_FORMAT_*
    uint32_t activations;  // VITRUM_ACTIVATIONS_*
} WeightRef;
static_assert(sizeof(WeightRef) == 24, "WeightRef");

// The KV cache of one layer. K: (pages, kv_heads, head_dim, PAGE_TOKENS), V: (pages, kv_heads, PAGE_TOKENS, head_dim).
typedef struct KvCacheRef {
    DEVPTR(void) k;
    DEVPTR(void) v;
    uint32_t format;  // VITRUM_FORMAT_F32 or VITRUM_FORMAT_F16
    uint32_t pages;
} KvCacheRef;
static_assert(sizeof(KvCacheRef) == 24, "KvCacheRef");

// Where a kernel leaves the rows that it makes for the linear layer that reads them next, in the form in which that
// layer's product reads them: times `gamma` if a norm comes before the layer, but not yet divided by the root of the
// mean square, which the layer does in the end (the squares are left beside the rows). Layout: csrc/common/rows.cuh.
// CPU kernels leave nothing: there, a linear layer prepares its rows itself, in the same memory.
typedef struct NextRows {
    DEVPTR(void) rows;         // as many as the kernel's own; 0: no layer reads them next
    DEVPTR(const float) gamma; // 0: no norm in between
    uint32_t activations;      // VITRUM_ACTIVATIONS_*
    uint32_t reserved;
} NextRows;
static_assert(sizeof(NextRows) == 24, "NextRows");

// What a CUDA kernel is given beside its parameters.
typedef struct LaunchInfo {
    DEVPTR(uint64_t) stamp;  // 0: off; else two cells, zero before the replay, of the device's clock in nanoseconds:
                             // the complement of the first block's begin, and the last block's end
} LaunchInfo;
static_assert(sizeof(LaunchInfo) == 8, "LaunchInfo");

// One entry of the attention work list: `rows` consecutive query rows of one sequence against KV positions
// [kv_first, kv_first + kv_count), cut by causality per row (row i sees positions 0 ..= positions[i]).
// `partial` = NO_PARTIAL: the item covers all positions of its rows, folds the chunks itself and writes the output.
// Otherwise it covers one chunk and writes rows x 1 partial results to slots partial, partial + 1, ...
typedef struct AttentionItem {
    uint32_t row;
    uint32_t rows;
    uint32_t seq;       // row of page_tables
    uint32_t kv_first;  // a multiple of KV_CHUNK_TOKENS
    uint32_t kv_count;
    uint32_t partial;   // NO_PARTIAL: none
} AttentionItem;
static_assert(sizeof(AttentionItem) == 24, "AttentionItem");

// Which partial results make up query row i: slots first + k * stride for k in 0..count; count = 0: written directly.
typedef struct AttentionSplit {
    uint32_t first;
    uint32_t stride;
    uint32_t count;
} AttentionSplit;
static_assert(sizeof(AttentionSplit) == 12, "AttentionSplit");

// What one row of the sample graph draws with.
typedef struct SampleRow {
    uint64_t seed;
    uint32_t position;   // counter of the generator: the position that the drawn token will have
    uint32_t slot;       // the sequence's slot, where the token goes for the next step
    float temperature;   // 0: the largest logit, lowest id on a tie
    float top_p;         // 1: off
    uint32_t top_k;      // 0: off
    uint32_t logprobs;   // 0: none; else 1 + the number of alternatives
} SampleRow;
static_assert(sizeof(SampleRow) == 32, "SampleRow");

// The log probabilities of one sampled row, of the unscaled logits (temperature and cuts not applied).
typedef struct LogprobRow {
    float chosen;
    uint32_t rank;  // of the chosen token among all, from 1
    uint32_t ids[VITRUM_MAX_LOGPROBS];
    float values[VITRUM_MAX_LOGPROBS];
} LogprobRow;
static_assert(sizeof(LogprobRow) == 168, "LogprobRow");

// ---- kernels --------------------------------------------------------------------------------------------------------

// x[i] = scale * embedding row of token i
typedef struct EmbedParams {
    DEVPTR(const StepShape) shape;
    DEVPTR(const int32_t) token_source;  // (tokens): >= 0 a token id, < 0 the token in slot -1 - value
    DEVPTR(const uint32_t) slot_tokens;  // (slots)
    DEVPTR(float) x;                     // (tokens, hidden)
    WeightRef weight;                    // (vocab, hidden)
    NextRows next;
    float scale;
    uint32_t reserved;
} EmbedParams;
static_assert(sizeof(EmbedParams) == 88, "EmbedParams");

// q = rope(norm(x) Wq + bias), K cache <- rope(norm(x) Wk + bias), V cache <- norm(x) Wv + bias. With `keys`, neither
// queries nor keys are rotated, and keys go there: qk_norm reads both.
typedef struct NormQkvParams {
    DEVPTR(const StepShape) shape;
    DEVPTR(const float) x;                // (tokens, hidden)
    DEVPTR(const float) gamma;            // (hidden); 0: no norm comes before
    DEVPTR(const float) bias;             // (wq.rows + wk.rows + wv.rows); 0: none
    DEVPTR(const float) rope;             // (max_position, head_dim / 2, 2): cos, sin; pairs are neighbours (2i, 2i+1);
                                          // 0: nothing is rotated
    DEVPTR(const uint32_t) positions;     // (tokens)
    DEVPTR(const uint32_t) slot_mapping;  // (tokens): page * PAGE_TOKENS + offset
    DEVPTR(float) q;                      // (tokens, heads * head_dim)
    DEVPTR(float) keys;                   // (tokens, kv_heads * head_dim); 0: the cache
    DEVPTR(void) rows;                    // as the product reads them: left by the kernel before, or prepared here
    WeightRef wq;                         // (heads * head_dim, hidden)
    WeightRef wk;                         // (kv_heads * head_dim, hidden)
    WeightRef wv;
    KvCacheRef kv;
    float eps;
    uint32_t hidden;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t reserved;
} NormQkvParams;
static_assert(sizeof(NormQkvParams) == 200, "NormQkvParams");

// q = rope(norm(q)), K cache <- rope(norm(keys)): of each head by itself, or of all heads of a row together
typedef struct QkNormParams {
    DEVPTR(const StepShape) shape;
    DEVPTR(float) q;                      // (tokens, heads * head_dim), replaced
    DEVPTR(const float) keys;             // (tokens, kv_heads * head_dim)
    DEVPTR(const float) q_gamma;          // (head_dim), or (heads * head_dim) if `whole`
    DEVPTR(const float) k_gamma;          // (head_dim), or (kv_heads * head_dim)
    DEVPTR(const float) rope;             // as in NormQkvParams; 0: nothing is rotated
    DEVPTR(const uint32_t) positions;     // (tokens)
    DEVPTR(const uint32_t) slot_mapping;  // (tokens)
    KvCacheRef kv;
    float eps;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t whole;     // the mean square is that of all heads of a row
    uint32_t reserved;
} QkNormParams;
static_assert(sizeof(QkNormParams) == 112, "QkNormParams");

// out = softmax(scale q K^T + causal) V, grouped queries, over the paged cache
typedef struct AttentionParams {
    DEVPTR(const StepShape) shape;
    DEVPTR(const float) q;                   // (tokens, heads * head_dim)
    DEVPTR(const uint32_t) positions;        // (tokens)
    DEVPTR(const uint32_t) page_tables;      // (seqs, max_pages)
    DEVPTR(const AttentionItem) items;       // (attention_items)
    DEVPTR(const AttentionSplit) splits;     // (tokens)
    DEVPTR(float) partials;                  // (slots, heads, head_dim + 2): accumulator, then maximum, then sum
    DEVPTR(uint32_t) arrivals;               // (tokens, kv_heads), zero between replays; the CPU has barriers instead
    DEVPTR(float) out;                       // (tokens, heads * head_dim)
    NextRows next;
    KvCacheRef kv;
    float scale;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_dim;
    uint32_t max_pages;
    uint32_t reserved;
} AttentionParams;
static_assert(sizeof(AttentionParams) == 144, "AttentionParams");

// x = from + scale * (input W^T + bias)
typedef struct LinearResidualParams {
    DEVPTR(const StepShape) shape;
    DEVPTR(const float) input;  // (tokens, weight.cols)
    DEVPTR(const float) from;   // (tokens, weight.rows): `x` itself; 0: zeros
    DEVPTR(float) x;            // (tokens, weight.rows)
    DEVPTR(const float) bias;   // (weight.rows); 0: none
    DEVPTR(void) rows;
    WeightRef weight;
    NextRows next;
    float scale;
    uint32_t reserved;
} LinearResidualParams;
static_assert(sizeof(LinearResidualParams) == 104, "LinearResidualParams");

// x += norm(y)
typedef struct NormResidualParams {
    DEVPTR(const StepShape) shape;
    DEVPTR(const float) y;      // (tokens, hidden)
    DEVPTR(const float) gamma;  // (hidden)
    DEVPTR(float) x;            // (tokens, hidden)
    NextRows next;
    float eps;
    uint32_t hidden;
} NormResidualParams;
static_assert(sizeof(NormResidualParams) == 64, "NormResidualParams");

// out = silu(norm(x) Wgate + bias) * (norm(x) Wup + bias)
typedef struct NormGateUpParams {
    DEVPTR(const StepShape) shape;
    DEVPTR(const float) x;      // (tokens, hidden)
    DEVPTR(const float) gamma;  // (hidden); 0: no norm comes before
    DEVPTR(const float) bias;   // (2, ffn); 0: none
    DEVPTR(float) out;          // (tokens, ffn)
    DEVPTR(void) rows;
    WeightRef gate;             // (ffn, hidden)
    WeightRef up;               // (ffn, hidden)
    NextRows next;
    float eps;
    uint32_t hidden;
    uint32_t ffn;
    uint32_t reserved;
} NormGateUpParams;
static_assert(sizeof(NormGateUpParams) == 136, "NormGateUpParams");

// logits = scale * norm(x[logit_rows]) W^T
typedef struct NormLmHeadParams {
    DEVPTR(const StepShape) shape;
    DEVPTR(const float) x;              // (tokens, hidden)
    DEVPTR(const uint32_t) logit_rows;  // (logit_rows): the row of x
    DEVPTR(const float) gamma;          // (hidden)
    DEVPTR(float) logits;               // (logit_rows, stride)
    DEVPTR(void) rows;                  // as `x`: logit_rows choose among them
    WeightRef weight;                   // (vocab, hidden)
    float eps;
    uint32_t hidden;
    uint32_t vocab;
    uint32_t stride;                    // floats between rows of logits, a multiple of 16
    float scale;
    uint32_t reserved;
} NormLmHeadParams;
static_assert(sizeof(NormLmHeadParams) == 96, "NormLmHeadParams");

// Draws one token per row and writes it into its sequence's slot.
typedef struct SampleParams {
    DEVPTR(const StepShape) shape;
    DEVPTR(const float) logits;         // (logit_rows, stride)
    DEVPTR(const SampleRow) rows;       // (logit_rows)
    DEVPTR(uint32_t) slot_tokens;       // (slots)
    DEVPTR(uint32_t) tokens;            // (logit_rows): the result
    DEVPTR(LogprobRow) logprobs;        // (logit_rows): where rows[i].logprobs > 0
    uint32_t vocab;
    uint32_t stride;
} SampleParams;
static_assert(sizeof(SampleParams) == 56, "SampleParams");

// ---- measuring: kernels that belong to no model --------------------------------------------------------------------

// Reads memory, or copies it, in whole words of 16 bytes, over and over.
typedef struct PeakMemoryParams {
    DEVPTR(const void) from;  // zeros
    DEVPTR(void) to;          // of a copy: as many bytes; of a read: four, which it does not write if all are zeros
    uint64_t bytes;
    uint32_t rounds;
    uint32_t reserved;
} PeakMemoryParams;
static_assert(sizeof(PeakMemoryParams) == 32, "PeakMemoryParams");

// Multiplies matrices that are in registers, over and over.
typedef struct PeakMatrixParams {
    DEVPTR(uint32_t) out;  // one word, which is written only if a sum is what none is
    uint32_t rounds;       // of PEAK_MATRIX_CHAINS products of each warp
    uint32_t reserved;
} PeakMatrixParams;
static_assert(sizeof(PeakMatrixParams) == 16, "PeakMatrixParams");

// Computes nothing.
typedef struct NodeProbeParams {
    DEVPTR(uint64_t) entry;  // 0: off; else a cell, zero before the replay: the complement of when the first block
                             // began, before it waits for the kernel ahead
    uint32_t spin_ns;        // how long each block stays, behind its wait
    uint32_t reserved;
} NodeProbeParams;
static_assert(sizeof(NodeProbeParams) == 16, "NodeProbeParams");

// Reads the device's clock over and over.
typedef struct ClockStepParams {
    DEVPTR(uint64_t) out;  // (3): the smallest step between two reads that differ, 0 if all are equal; how many steps
                           // there were; nanoseconds from the first read to the last
    uint32_t reads;
    uint32_t reserved;
} ClockStepParams;
static_assert(sizeof(ClockStepParams) == 16, "ClockStepParams");
