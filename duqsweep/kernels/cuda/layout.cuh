// Where things lie in a program's shared memory, in bytes.
#pragma once
#include "sizes.cuh"

// Rows are padded by 16 bytes, so that eight of them lie in different banks.
constexpr int PITCH = WIDTH + 16, KEY_PITCH = 2 * DIM + 16;
__host__ __device__ constexpr int max_of(int a, int b) { return a > b ? a : b; }
__host__ __device__ constexpr int lines(int bytes) { return (bytes + 127) / 128 * 128; }
enum Signal {
    KEYS_IN, WEIGHT_IN, GATE_UP_IN, CODES_IN, PARTS_IN, MIXED_IN, MIXED_PEAKS_IN, HIDDEN_PEAKS_IN, SLOTS_IN, SIGNALS
};
constexpr int AT_SIGNALS = 0;
constexpr int AT_DONE = AT_SIGNALS + 8 * 12;           // (PRODUCTS) counts
static_assert(8 * SIGNALS <= AT_DONE && 4 * PRODUCTS <= 32, "more than there is room for");
constexpr int AT_SCALES = AT_SIGNALS + 8 * 16;         // (ROWS) float: of a token's codes
constexpr int AT_PEAKS = AT_SCALES + 4 * ROWS;         // (ROWS, RANKS) float
constexpr int AT_WARPS = AT_PEAKS + 4 * ROWS * RANKS;  // (2, WARPS) float
constexpr int AT_WEIGHT_SCALES = AT_WARPS + 8 * WARPS; // (96) float
constexpr int AT_GATES = AT_WEIGHT_SCALES + 384;       // (16) float
constexpr int AT_WEIGHT = lines(AT_GATES + 64);        // fragments of qkv, then of o, then of down
constexpr int AT_CODES = lines(AT_WEIGHT + max_of(QKV_BYTES, max_of(O_BYTES, DOWN_BYTES)));   // (ROWS, PITCH)
constexpr int AT_SUMS = AT_CODES + ROWS * PITCH;       // partial products behind a norm; before, its rows
constexpr int SUMS_BYTES =
    max_of(TILES_M == 1 ? SPANS * max_of(QKV_SLOTS, GATE_UP_TILES) * ROWS * 32 : 0, WARPS / TOKEN_WARPS * 2 * WIDTH);
constexpr int AT_SLOTS = lines(AT_CODES + ROWS * (DOWN_SLICE + 16)); // partial products of o and down
// While attention runs, over the codes:
constexpr int AT_QUERIES = AT_CODES;
constexpr int AT_PARTS = AT_QUERIES + CLUSTER_TOKENS * HEADS * KEY_PITCH;   // (RANKS, tokens, DIM) float
constexpr int AT_SPREADS = AT_PARTS + RANKS * CLUSTER_TOKENS * DIM * 4;     // (RANKS, tokens) peak, sum
constexpr int AT_KEY_PEAKS = AT_SPREADS + RANKS * CLUSTER_TOKENS * 8;       // (tiles, tokens * HEADS) float
constexpr int AT_KEY_SUMS = AT_KEY_PEAKS + 8 * CLUSTER_TOKENS * HEADS * 4;
constexpr int AT_SHARES = lines(AT_KEY_SUMS + 8 * CLUSTER_TOKENS * HEADS * 4);
constexpr int SHARE_PITCH = 2 * 128 + 16;
constexpr int AT_MIXED = lines(AT_SHARES + CLUSTER_TOKENS * HEADS * SHARE_PITCH);  // (tokens, DIM) words
constexpr int ATTEND_END = AT_MIXED + CLUSTER_TOKENS * DIM * 4;
constexpr int SLOTS_END = AT_SLOTS + EXIT_TURNS * RANKS * ROWS * 32;
constexpr int AT_KEYS = lines(max_of(max_of(AT_SUMS + SUMS_BYTES, SLOTS_END), ATTEND_END));
constexpr int AT_GATE_UP = AT_KEYS;                    // fragments, once attention has read the keys
constexpr int AT_OWN_PARTS = AT_KEYS;                  // (tokens, HEADS, DIM + 4) float, once it has scores
constexpr int MOST_SHARED = 232448;                    // what a program may have
constexpr int ROOM_FOR_KEYS = (MOST_SHARED - AT_KEYS) / (2 * KEY_PITCH) / 16 * 16;
constexpr int KEYS = ROOM_FOR_KEYS < 128 ? ROOM_FOR_KEYS : 128;   // most keys of a rank
constexpr int AT_VALUES = AT_KEYS + KEYS * KEY_PITCH;
constexpr int SHARED = max_of(AT_VALUES + KEYS * KEY_PITCH, AT_GATE_UP + GATE_UP_BYTES);
static_assert(CLUSTER_TOKENS * HEADS * (DIM + 4) * 4 <= KEYS * KEY_PITCH, "sums must fit into the keys' place");
static_assert(SHARED <= MOST_SHARED, "more shared memory than a program may have");
