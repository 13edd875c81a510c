// What closes a sublayer: codes of a slice of channels a rank, and their product, added to the stream.
#pragma once
#include "codes.cuh"
#include "products.cuh"
#include "peaks.cuh"

// Codes of a slice of channels, which one phase left for all programs.
template <int SLICE>
__device__ __forceinline__ void fetch_codes(const unsigned char *codes, const float *scales, const Place &p) {
    constexpr int PIECES = SLICE / 16, TURNS = (TOKENS * PIECES + THREADS - 1) / THREADS;
    uint4 pieces[TURNS];
#pragma unroll
    for (int i = 0; i < TURNS; i++) {
        const int piece = p.thread + i * THREADS;
        if (piece < TOKENS * PIECES)
            pieces[i] =
                __ldcg((const uint4 *)(codes + piece / PIECES * (SLICE * RANKS) + p.rank * SLICE) + piece % PIECES);
    }
    if (p.thread < TOKENS) shared<float>(AT_SCALES + 4 * p.thread) = __ldcg(scales + p.thread);
#pragma unroll
    for (int i = 0; i < TURNS; i++) {
        const int piece = p.thread + i * THREADS;
        if (piece < TOKENS * PIECES)
            shared<uint4>(AT_CODES + piece / PIECES * (SLICE + 16) + piece % PIECES * 16) = pieces[i];
    }
}

// Codes of a slice of a few tokens' channels, made by each cluster for itself: a warp a token.
template <int SLICE>
__device__ __forceinline__ void make_codes(const u16 *source, int parity, const Place &p) {
    constexpr int N = SLICE / 32;
    if (p.warp < TOKENS) {
        u32 raw[N / 2];
        load_fresh(raw, source + p.warp * (SLICE * RANKS) + p.rank * SLICE + p.lane * N);
        float v[N];
#pragma unroll
        for (int i = 0; i < N / 2; i++) v[2 * i] = low(raw[i]), v[2 * i + 1] = high(raw[i]);
        rotate(v, p.lane);
        float peak = peak_of(v);
        const float scale = scale_of(peak_of_ranks(peak, HIDDEN_PEAKS_IN, parity, p));
        if (p.lane == 0) shared<float>(AT_SCALES + 4 * p.warp) = scale;
        u32 words[N / 4];
        pack(words, v, scale);
        shared<uint4>(AT_CODES + p.warp * (SLICE + 16) + p.lane * N) = {words[0], words[1], words[2], words[3]};
    }
}

// The product of the rank's slice; each tile of outputs goes to one rank. One tile of tokens: a warp a tile of
// outputs; more: it has four apart, of one tile of tokens.
template <int SLICE> __device__ __forceinline__ void push_sums(const Place &p) {
    constexpr int PITCH_HERE = SLICE + 16, STRIDE = fragment_bytes(1, SLICE);
    constexpr int TURNS = TILES_M == 1 ? 1 : (EXIT_TILES + 3) / 4, SURE = TILES_M == 1 ? 1 : EXIT_TILES / 4;
    const int m = TILES_M == 1 ? 0 : p.warp % 4, first = TILES_M == 1 ? p.warp : p.warp / 4;
    const int tiles = TILES_M == 1 ? first < EXIT_TILES : (EXIT_TILES - first + 3) / 4;
    if (m < TILES_M && tiles > 0) {
        int sums[TURNS][4];
        product<SURE, TURNS, SLICE / 32>(
            sums, AT_CODES + m * 16 * PITCH_HERE, PITCH_HERE, AT_WEIGHT + first * STRIDE, 4 * STRIDE, tiles, p.lane);
#pragma unroll
        for (int t = 0; t < TURNS; t++) {
            const int tile = first + 4 * t;
            if (t >= tiles) continue;
            const int row = (tile / RANKS * RANKS + p.rank) * ROWS + m * 16 + p.lane / 4;
            const int to = AT_SLOTS + row * 32 + p.lane % 4 * 8;
            push(to, tile % RANKS, SLOTS_IN, (u32)sums[t][0], (u32)sums[t][1]);
            push(to + 256, tile % RANKS, SLOTS_IN, (u32)sums[t][2], (u32)sums[t][3]);
        }
    }
}

// The product of a slice of channels a rank, summed over the ranks of a cluster, added to the stream.
template <int SLICE>
__device__ __forceinline__ void exit_phase(
    const Arguments &g, Meeting &meeting, const float *scales, const u16 *gate, const Turn &turn, const Place &p) {
    constexpr bool DOWN = SLICE == DOWN_SLICE, MAKES = DOWN && TILES_M == 1;
    const int token = p.thread / 8, n = p.thread % 8, first_tile = p.cluster * EXIT_TILES;
    if (p.thread >= SCALER && p.thread < SCALER + 8 * EXIT_TURNS) {
        const int i = p.thread - SCALER, output = min((first_tile + p.rank + i / 8 * RANKS) * 8 + n, WIDTH - 1);
        shared<float>(AT_WEIGHT_SCALES + 4 * i) = __ldg(scales + turn.layer * WIDTH + output);
        shared<float>(AT_GATES + 4 * i) = wide(__ldg(gate + output));
    }
    if (p.thread == COPIER && p.cta * 8 < WIDTH) prefetch(scales + turn.next * WIDTH + p.cta * 8, 32);
    if (p.thread == EXPECTER) {
        if (MAKES) expect(HIDDEN_PEAKS_IN, TOKENS * RANKS * 4);
        expect(SLOTS_IN, (EXIT_TILES - p.rank + RANKS - 1) / RANKS * RANKS * ROWS * 32);
    }
    meeting.wait();
    float before[EXIT_TURNS];
#pragma unroll
    for (int i = 0; i < EXIT_TURNS; i++) {
        const int tile = p.rank + i * RANKS, output = (first_tile + tile) * 8 + n;
        if (token < TOKENS && tile < EXIT_TILES && output < WIDTH)
            before[i] = wide(__ldcg(g.stream + token * WIDTH + output));
    }
    if (MAKES) make_codes<SLICE>(g.hidden, turn.parity, p);
    else if (DOWN) fetch_codes<SLICE>(g.hidden_codes, g.hidden_scales, p);
    else fetch_codes<SLICE>(g.mixed_codes, g.mixed_scales, p);
    await(WEIGHT_IN, turn.parity ^ !DOWN);   // three times a layer: qkv, o, down
    __syncthreads();
    push_sums<SLICE>(p);
    await(SLOTS_IN, DOWN);   // twice a layer
#pragma unroll
    for (int i = 0; i < EXIT_TURNS; i++) {
        const int tile = p.rank + i * RANKS, output = (first_tile + tile) * 8 + n;
        if (token >= TOKENS || tile >= EXIT_TILES || output >= WIDTH) continue;
        int sum = 0;
#pragma unroll
        for (int rank = 0; rank < RANKS; rank++)
            sum += shared<int>(AT_SLOTS + ((i * RANKS + rank) * ROWS + token) * 32 + n * 4);
        const float scale = shared<float>(AT_WEIGHT_SCALES + (i * 8 + n) * 4) * shared<float>(AT_SCALES + 4 * token);
        const float after = before[i] + sum * scale * shared<float>(AT_GATES + (i * 8 + n) * 4);
        g.stream[token * WIDTH + output] = narrow(after);
    }
    count(DOWN ? DOWN_DONE : O_DONE, p);
    meeting.arrive();
}
