// Layout of a CTA's shared memory; offsets in bytes.
#pragma once
#include "sizes.cuh"

// Rows are padded by 16 bytes, so that eight consecutive rows use different banks.
constexpr int PITCH = WIDTH + 16, KEY_PITCH = 2 * DIM + 16;
__host__ __device__ constexpr int max_of(int a, int b) { return a > b ? a : b; }
__host__ __device__ constexpr int lines(int bytes) { return (bytes + 127) / 128 * 128; }
enum Mbarrier {
    KEYS_IN, WEIGHT_IN, GATE_UP_IN, CODES_IN, PARTIALS_IN, ATTN_AMAX_IN, HIDDEN_AMAX_IN, PARTIAL_SUMS_IN,
    MORE_KEYS_IN, MBARRIERS = MORE_KEYS_IN + CHUNKED
};
constexpr int AT_MBARRIERS = 0;
constexpr int AT_COUNTS = AT_MBARRIERS + 8 * 12;           // (PRODUCTS) u32
static_assert(8 * MBARRIERS <= AT_COUNTS && 4 * PRODUCTS <= 32, "mbarriers or counters do not fit");
constexpr int AT_SCALES = AT_MBARRIERS + 8 * 16;         // (ROWS) float: one scale per token
constexpr int AT_AMAX = AT_SCALES + 4 * ROWS;         // (ROWS, RANKS) float
constexpr int AT_WARP_PARTIALS = AT_AMAX + 4 * ROWS * RANKS;  // (2, WARPS) float
constexpr int AT_WEIGHT_SCALES = AT_WARP_PARTIALS + 8 * WARPS; // (8 * tiles) float
constexpr int AT_GATES = AT_WEIGHT_SCALES + max_of(384, GATE_UP_TILES * 32);   // (16) float
constexpr int AT_SOURCE_HEADS = AT_GATES + 64;     // (DIM) bytes: the heads of the rank's slice of o's input
constexpr int AT_ROTARY = AT_SOURCE_HEADS + DIM;   // (PART_TOKENS, QKV_CTA_TILES, 4) cosine, sine: of the whole loop
constexpr int ROTARY_END = AT_ROTARY + PART_TOKENS * QKV_CTA_TILES * 4 * 8;
constexpr int AT_WEIGHT = lines(ROTARY_END);           // fragments: of qkv, later of o, later of down
constexpr int AT_CODES = lines(AT_WEIGHT + max_of(QKV_BYTES, max_of(O_BYTES, DOWN_BYTES)));   // (PART_ROWS, PITCH)
constexpr int SUMS_BYTES =
    max_of(PART_TILES_M == 1 ? 4 * max_of(QKV_CTA_TILES, GATE_UP_TILES) * (PART_ROWS * 32 + 32) : 0,
           WARPS / TOKEN_WARPS * 2 * WIDTH);
// During attention, in the space of the codes:
constexpr int AT_QUERIES = AT_CODES;
constexpr int AT_PARTIALS = AT_QUERIES + CLUSTER_TOKENS * HEADS * KEY_PITCH;   // (RANKS, tokens, DIM) float
// (RANKS, tokens, HEADS) maximum, sum
constexpr int AT_SOFTMAX_STATS = AT_PARTIALS + RANKS * CLUSTER_TOKENS * DIM * 4;
constexpr int AT_KEY_MAX = AT_SOFTMAX_STATS + RANKS * CLUSTER_TOKENS * HEADS * 8;      // (tiles, tokens * HEADS) float
constexpr int AT_KEY_SUMS = AT_KEY_MAX + 8 * CLUSTER_TOKENS * HEADS * 4;
// Of earlier chunks of keys, each (tokens * HEADS) float: maxima, sums, and the factors that rescale the sums.
constexpr int AT_EARLIER_MAX = AT_KEY_SUMS + 8 * CLUSTER_TOKENS * HEADS * 4;
constexpr int AT_EARLIER_SUMS = AT_EARLIER_MAX + CLUSTER_TOKENS * HEADS * 4;
constexpr int AT_RESCALE = AT_EARLIER_SUMS + CLUSTER_TOKENS * HEADS * 4;
constexpr int AT_PROBS = lines(CHUNKED ? AT_RESCALE + CLUSTER_TOKENS * HEADS * 4 : AT_EARLIER_MAX);
constexpr int PROB_PITCH = 2 * 128 + 16;
constexpr int AT_ATTN = lines(AT_PROBS + CLUSTER_TOKENS * HEADS * PROB_PITCH);  // (tokens, DIM) words
constexpr int ATTEND_END = AT_ATTN + CLUSTER_TOKENS * DIM * 4;
// Partial sums after a norm; before that, the norm's input.
constexpr int AT_SUMS = max_of(AT_CODES + PART_ROWS * PITCH, TILES_M == 1 ? ATTEND_END : 0);
// Partial sums of o and down. With one tile of tokens in the space of gate_up's, which a slower CTA may still add up: down has
// none to send before all of gate_up's results are there.
constexpr int AT_PARTIAL_SUMS = TILES_M == 1 ? lines(AT_SUMS) : lines(AT_CODES + ROWS * (DOWN_SLICE + 16));
// Where CTAs arrive at the grid barrier before the end of a phase (`GridBarrier`), as they always do in attention and
// gate_up: where what other ranks send in the next phase does not overwrite what this CTA still reads.
constexpr bool QKV_EARLY = TILES_M == 1 && CLUSTER_TOKENS == 1;
constexpr bool RESIDUAL_EARLY = AT_PARTIAL_SUMS >= AT_CODES + PART_ROWS * PITCH;
constexpr int PARTIAL_SUMS_END = AT_PARTIAL_SUMS + RESIDUAL_ROUNDS * RANKS * ROWS * 32;
constexpr int AT_KEYS = lines(max_of(max_of(AT_SUMS + SUMS_BYTES, PARTIAL_SUMS_END), ATTEND_END));
constexpr int AT_GATE_UP = AT_KEYS;                    // fragments, after attention has read the keys
constexpr int MAX_SMEM = 232448;                    // limit per CTA on Hopper
constexpr int FITTING_KEYS = (MAX_SMEM - AT_KEYS) / (2 * KEY_PITCH) / 16 * 16;
// If CHUNKED, a rank's keys and values come in chunks. The first one fills the space of the keys and that of the values;
// of more keys than that, each further chunk, both keys and values, goes into one of the two spaces, once it is free.
constexpr int MAX_KEYS = FITTING_KEYS < 128 ? FITTING_KEYS : 128, MORE_KEYS = MAX_KEYS / 32 * 16;
constexpr int AT_VALUES = AT_KEYS + MAX_KEYS * KEY_PITCH;
constexpr int SMEM_BYTES = max_of(AT_VALUES + MAX_KEYS * KEY_PITCH, AT_GATE_UP + GATE_UP_BYTES);
static_assert(MORE_KEYS > 0 && CLUSTER_TOKENS * HEADS * (DIM + 4) * 4 <= MAX_KEYS * KEY_PITCH,
              "the keys do not fit, or the partial results do not fit into their space");
static_assert(SMEM_BYTES <= MAX_SMEM, "more shared memory than a CTA may have");
