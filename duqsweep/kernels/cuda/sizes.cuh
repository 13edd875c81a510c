// Sizes of pi0.5's action expert, and how a layer is cut into programs.
#pragma once

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

constexpr int RANKS = 8, CTAS = RANKS * CLUSTERS, WARPS = 16, THREADS = 32 * WARPS;
constexpr int WIDTH = 1024, HIDDEN = 4096, HEADS = 8, DIM = 256, MIXED = HEADS * DIM;
constexpr int TILES_M = (TOKENS + 15) / 16, ROWS = 16 * TILES_M;     // of tokens
constexpr int CLUSTER_TOKENS = (TOKENS + CLUSTERS - 1) / CLUSTERS;   // whose attention a cluster computes

// A step is 32 channels, a chunk the 16 bytes of a weight that a lane holds at a time.
constexpr int CHUNK_STEPS = FORMAT == 4 ? 4 : 2, CHUNK = 32 * 16;
constexpr int SPANS = 4, SPAN_STEPS = WIDTH / 32 / SPANS;            // of channels, in the products behind a norm
__host__ __device__ constexpr int fragment_bytes(int tiles, int width) {
    return tiles * (width / 32 / CHUNK_STEPS) * CHUNK;
}

// Tiles of eight outputs.
constexpr int QKV_TILES = (HEADS + 2) * DIM / 8, QKV_SLOTS = 3;      // of all, of a program
constexpr int GATE_UP_TILES = (2 * HIDDEN / 8 + CTAS - 1) / CTAS;    // of a program
constexpr int EXIT_TILES = (WIDTH / 8 + CLUSTERS - 1) / CLUSTERS;    // of a cluster, in the products of o and down
constexpr int EXIT_TURNS = (EXIT_TILES + RANKS - 1) / RANKS;         // of them a rank adds to the stream
static_assert(QKV_SLOTS * CTAS >= QKV_TILES && EXIT_TILES <= WARPS, "too few programs");
static_assert(TOKENS <= 64 && BLOCK <= 128 && ACTION <= 128, "more than there is room for");
constexpr int O_SLICE = MIXED / RANKS, DOWN_SLICE = HIDDEN / RANKS;  // channels of a rank
constexpr int QKV_BYTES = fragment_bytes(QKV_SLOTS, WIDTH), GATE_UP_BYTES = fragment_bytes(GATE_UP_TILES, WIDTH);
constexpr int O_BYTES = fragment_bytes(EXIT_TILES, O_SLICE), DOWN_BYTES = fragment_bytes(EXIT_TILES, DOWN_SLICE);

// A token's norm: warps that share it, and the channels of a lane.
constexpr int TOKEN_WARPS = TILES_M == 1 ? 8 : 2, SPREAD = WIDTH / (32 * TOKEN_WARPS);

constexpr float EPS = 1e-6f, SMALLEST_SCALE = 1e-8f, LOWEST = -3.4e38f;

struct Arguments {
    const unsigned char *qkv, *o, *gate_up, *down;   // (LAYERS, CTAS, ...): fragments
    const float *qkv_scales, *o_scales, *gate_up_scales, *down_scales;   // (LAYERS, outputs as the fragments lie)
    // (LAYERS, 4, WIDTH): where the channels of qkv and of gate_up come from, and where those of o go to.
    const u16 *orders;
    // (steps, 2 * LAYERS + 1, 3, WIDTH): factor, shift and gate of the norms, the first two in those orders.
    const u16 *modulations;
    const u16 *out_weight, *out_bias;       // (ACTION, WIDTH), (ACTION)
    const u16 *in_weight, *in_bias;         // (WIDTH, ACTION), (WIDTH)
    const float *noise;                     // (TOKENS, ACTION)
    float *actions;                         // (TOKENS, ACTION)
    const float *cosines, *sines;           // (ROWS, DIM / 2)
    u16 *stream, *queries, *keys, *values, *hidden;   // (TOKENS, ...)
    unsigned char *mixed_codes, *hidden_codes;        // (TOKENS, ...)
    float *mixed_scales, *hidden_scales;              // (TOKENS)
    // (LAYERS, keys and values, RANKS, rows, KEY_PITCH): the prefix as the ranks hold it, zeros behind it.
    const unsigned char *keys_values;
    u32 *arrivals;   // zero at the start
    u32 *done;       // (PRODUCTS) zero at the start: how often the programs, all together, made each product
    int prefix, steps;
};

enum Product { QKV_DONE, O_DONE, GATE_UP_DONE, DOWN_DONE, PRODUCTS };

struct Place {   // of a thread, and of its rank's keys: position of the first, number, rows they are held in
    int thread, lane, warp, cta, cluster, rank;
    int first_key, keys, key_rows;
};

struct Turn {   // of the loop: where it is, which layer comes next, and the parity of the turns' signals
    int step, layer, next, parity;
    bool last;
};

// Threads that serve the others between arriving at a barrier and waiting there; thread 0 only waits.
constexpr int COPIER = 32, EXPECTER = 64, SCALER = 96;
constexpr int COUNTER = 128;   // counts what its program has done
