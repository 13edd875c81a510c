// Sizes of pi0.5's action expert, and how a layer is divided among CTAs.
#pragma once
#include "types.cuh"

constexpr int RANKS = 8, CTAS = RANKS * CLUSTERS, WARPS = 16, THREADS = 32 * WARPS;
constexpr int WIDTH = 1024, HIDDEN = 4096, HEADS = 8, DIM = 256, ATTN_WIDTH = HEADS * DIM;
constexpr int TILES_M = (TOKENS + 15) / 16, ROWS = 16 * TILES_M;     // of tokens
constexpr int CLUSTER_TOKENS = (TOKENS + CLUSTERS - 1) / CLUSTERS;   // per cluster, in attention

// In the products after a norm, the ranks of a cluster are divided into PARTS: each computes a part of the tokens, for
// the same outputs. A set is a CTA of each part; sets compute different outputs.
constexpr int PART_RANKS = RANKS / PARTS, SETS = CTAS / PARTS, PART_TOKENS = (TOKENS + PARTS - 1) / PARTS;
constexpr int PART_TILES_M = (PART_TOKENS + 15) / 16, PART_ROWS = 16 * PART_TILES_M;

// Sums of products, of codes that are integers or e4m3; both have four bytes.
#if E4M3
using Sum = float;
DEVICE u32 bits_of(Sum sum) { return __float_as_uint(sum); }
#else
using Sum = int;
DEVICE u32 bits_of(Sum sum) { return (u32)sum; }
#endif

// A step is 32 input channels; a chunk is the 16 bytes of a weight that a lane loads at once.
constexpr int CHUNK_STEPS = FORMAT == 4 ? 4 : 2, CHUNK = 32 * 16;
__host__ __device__ constexpr int fragment_bytes(int tiles, int width) {
    return tiles * (width / 32 / CHUNK_STEPS) * CHUNK;
}

// Counts of tiles of eight outputs.
constexpr int QKV_TILES = (HEADS + 2) * DIM / 8, QKV_CTA_TILES = (QKV_TILES + SETS - 1) / SETS;   // in total; per CTA
constexpr int GATE_UP_TILES = (2 * HIDDEN / 8 + SETS - 1) / SETS;    // per CTA
constexpr int RESIDUAL_TILES = (WIDTH / 8 + CLUSTERS - 1) / CLUSTERS;    // per cluster, in o and down
constexpr int RESIDUAL_ROUNDS = (RESIDUAL_TILES + RANKS - 1) / RANKS;         // tiles that a rank adds to the stream
static_assert(RESIDUAL_TILES <= WARPS, "too few CTAs");
static_assert(FORMAT == 8 || !E4M3, "an e4m3 weight has 8 bits");
static_assert(TOKENS <= 64 && BLOCK <= 128 && ACTION <= 128, "TOKENS, BLOCK or ACTION is too large");
constexpr int O_SLICE = ATTN_WIDTH / RANKS, DOWN_SLICE = HIDDEN / RANKS;  // input channels per rank
constexpr int QKV_BYTES = fragment_bytes(QKV_CTA_TILES, WIDTH), GATE_UP_BYTES = fragment_bytes(GATE_UP_TILES, WIDTH);
constexpr int O_BYTES = fragment_bytes(RESIDUAL_TILES, O_SLICE);
constexpr int DOWN_BYTES = fragment_bytes(RESIDUAL_TILES, DOWN_SLICE);

// Norm: warps per token, and channels per lane.
constexpr int TOKEN_WARPS = TILES_M == 1 ? 8 : 2, LANE_CHANNELS = WIDTH / (32 * TOKEN_WARPS);
static_assert(PART_TOKENS <= PART_RANKS * WARPS / TOKEN_WARPS, "too many tokens per rank");

constexpr float EPS = 1e-6f, SMALLEST_SCALE = 1e-8f, LOWEST = -3.4e38f;

struct Arguments {
    const unsigned char *qkv, *o, *gate_up, *down;   // (LAYERS, CTAS, ...): fragments
    const float *qkv_scales, *o_scales, *gate_up_scales, *down_scales;   // (LAYERS, outputs in fragment order)
    // (LAYERS, 4, WIDTH): input permutations of qkv and gate_up, then (two rows) the inverse permutation of o.
    const u16 *permutations;
    // (steps, 2 * LAYERS + 1, 3, WIDTH): factor, shift and gate of each norm; factor and shift are permuted.
    const u16 *modulations;
    const u16 *out_weight, *out_bias;       // (ACTION, WIDTH), (ACTION)
    const u16 *in_weight, *in_bias;         // (WIDTH, ACTION), (WIDTH)
    const float *step_sizes;                // (steps): by how much time decreases in each step
    const float *noise;                     // (TOKENS, ACTION)
    float *actions;                         // (TOKENS, ACTION)
    const float *cosines, *sines;           // (ROWS, DIM / 2)
    // The first dimension: of even and of odd iterations, and the stream between attention and MLP.
    u16 *stream;                                     // (3, TOKENS, WIDTH)
    u16 *queries, *keys, *values, *hidden;           // (2, TOKENS, ...)
    unsigned char *attn_codes, *hidden_codes;        // (2, TOKENS, ...)
    float *attn_scales, *hidden_scales;              // (2, TOKENS)
    // (LAYERS, 2: keys and values, RANKS, rows, KEY_PITCH): each rank's part of the prefix, padded with zeros.
    const unsigned char *keys_values;
    u32 *arrivals;   // of the grid barrier; zero at launch
    u32 *product_counts;       // (PRODUCTS), zero at launch: products computed, summed over all CTAs
    int prefix, steps;
};

constexpr int AFTER_ATTENTION = 2;   // number of a residual stream; 0 and 1: after down of even and of odd iterations
DEVICE u16 *stream_of(const Arguments &g, int number) { return g.stream + number * TOKENS * WIDTH; }

enum Product { QKV_DONE, O_DONE, GATE_UP_DONE, DOWN_DONE, PRODUCTS };

// A thread's indices; the first token of its part; its rank's keys: position of the first, number, and rows of the
// buffer that holds them.
struct ThreadPosition {
    int thread, lane, warp, cta, cluster, rank, set, first_token;
    int first_key, keys, key_rows;
};

// Each phase asks for its position anew (volatile): otherwise the compiler computes the addresses of all phases before the
// loop, and has too few registers for them.
DEVICE ThreadPosition position(const Arguments &g) {
    int thread, cta;
    asm volatile("mov.u32 %0, %%tid.x;\n\tmov.u32 %1, %%ctaid.x;" : "=r"(thread), "=r"(cta));
    const int rank = cta % RANKS, total = g.prefix + TOKENS, per_rank = (total + RANKS - 1) / RANKS;
    return {thread, thread % 32, thread / 32, cta, cta / RANKS, rank,
            cta / RANKS * PART_RANKS + rank % PART_RANKS, rank / PART_RANKS * PART_TOKENS,
            rank * per_rank, max(0, min(per_rank, total - rank * per_rank)), (per_rank + 15) / 16 * 16};
}

// One iteration of the loop over layers: `next` is the layer that follows, `parity` that of its mbarriers.
struct Iteration {
    int step, layer, next, parity;
    bool last;
};

// Threads with extra work between arriving at the grid barrier and waiting there.
constexpr int COPY_THREAD = 32, EXPECT_THREAD = 64, SCALE_THREAD = 96;
// The last warp polls while others finish a phase. It leaves those results to them, unless there are too many tokens.
constexpr int POLL_THREAD = THREADS - 32, FINISHING = TOKENS * 8 <= POLL_THREAD ? POLL_THREAD : THREADS;
constexpr int COUNT_THREAD = 128;   // counts the CTA's products
