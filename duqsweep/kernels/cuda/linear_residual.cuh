// End of a sublayer: the product of o or down, added to the residual stream. Each rank multiplies a slice of the input
// channels.
#pragma once
#include "quantize.cuh"
#include "products.cuh"

// Copies this rank's slice of the quantized input, written to global memory by an earlier phase.
template <int SLICE>
DEVICE void load_codes(const unsigned char *codes, const float *scales, const ThreadPosition &p) {
    constexpr int PIECES = SLICE / 16, ROUNDS = (TOKENS * PIECES + THREADS - 1) / THREADS;
    u32 pieces[ROUNDS][4] = {}, scale[1];
    const auto load = [&](int i) {
        const int piece = p.thread + i * THREADS, token = piece / PIECES;
        load_l2(pieces[i], codes + token * (SLICE * RANKS) + p.rank * SLICE + piece % PIECES * 16);
    };
#pragma unroll
    for (int i = 0; i < ROUNDS; i++)
        if (p.thread + i * THREADS < TOKENS * PIECES) load(i);
    if (p.thread < TOKENS) {
        do load_l2(scale, scales + p.thread);
        while (scale[0] == UNWRITTEN);
        shared<u32>(AT_SCALES + 4 * p.thread) = scale[0];
    }
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        const int piece = p.thread + i * THREADS;
        if (piece >= TOKENS * PIECES) continue;
        const u32 (&now)[4] = pieces[i];
        while (now[0] == UNWRITTEN_CODES || now[1] == UNWRITTEN_CODES || now[2] == UNWRITTEN_CODES ||
               now[3] == UNWRITTEN_CODES)
            load(i);
        shared<uint4>(AT_CODES + piece / PIECES * (SLICE + 16) + piece % PIECES * 16) = {
            now[0], now[1], now[2], now[3]};
    }
}

// Quantizes this rank's slice of at most 16 tokens: one warp per token. Every cluster does this for itself.
template <int SLICE>
DEVICE void quantize_slice(const u16 *source, int parity, const ThreadPosition &p) {
    constexpr int N = SLICE / 32;
    if (p.warp < TOKENS) {
        u32 raw[N / 2];
        load_written(raw, source + p.warp * (SLICE * RANKS) + p.rank * SLICE + p.lane * N);
        float v[N];
#pragma unroll
        for (int i = 0; i < N / 2; i++) v[2 * i] = low(raw[i]), v[2 * i + 1] = high(raw[i]);
        rotate(v, p.lane);
        float amax = values_amax(v);
        const float scale = scale_of(cluster_amax(amax, HIDDEN_AMAX_IN, parity, p));
        if (p.lane == 0) shared<float>(AT_SCALES + 4 * p.warp) = scale;
        u32 words[N / 4];
        pack(words, v, scale);
        shared<uint4>(AT_CODES + p.warp * (SLICE + 16) + p.lane * N) = {words[0], words[1], words[2], words[3]};
    }
}

// Multiplies the rank's slice and sends the partial sums of each output tile to one rank. With one tile of tokens, a
// warp has one output tile; with more, it has every fourth output tile, of one tile of tokens.
template <int SLICE> DEVICE void store_partial_sums(const ThreadPosition &p) {
    constexpr int PITCH_HERE = SLICE + 16, STRIDE = fragment_bytes(1, SLICE);
    constexpr int ROUNDS = TILES_M == 1 ? 1 : (RESIDUAL_TILES + 3) / 4;
    constexpr int MIN_TILES = TILES_M == 1 ? 1 : RESIDUAL_TILES / 4;
    const int m = TILES_M == 1 ? 0 : p.warp % 4, first = TILES_M == 1 ? p.warp : p.warp / 4;
    const int tiles = TILES_M == 1 ? first < RESIDUAL_TILES : (RESIDUAL_TILES - first + 3) / 4;
    if (m < TILES_M && tiles > 0) {
        Sum sums[ROUNDS][4];
        product<MIN_TILES, ROUNDS, SLICE / 32>(
            sums, AT_CODES + m * 16 * PITCH_HERE, PITCH_HERE, AT_WEIGHT + first * STRIDE, 4 * STRIDE, tiles, p.lane);
#pragma unroll
        for (int t = 0; t < ROUNDS; t++) {
            const int tile = first + 4 * t;
            if (t >= tiles) continue;
            const int token = m * 16 + p.lane / 4, row = (tile / RANKS * RANKS + p.rank) * ROWS + token;
            const int to = AT_PARTIAL_SUMS + row * 32 + p.lane % 4 * 8;
            if (token < TOKENS)
                remote_store(to, tile % RANKS, PARTIAL_SUMS_IN, bits_of(sums[t][0]), bits_of(sums[t][1]));
            if (token + 8 < TOKENS)
                remote_store(to + 256, tile % RANKS, PARTIAL_SUMS_IN, bits_of(sums[t][2]), bits_of(sums[t][3]));
        }
    }
}

// Sums the ranks' partial products within the cluster and adds gate times the result to the residual stream.
template <int SLICE>
DEVICE void linear_residual_phase(
    const Arguments &g, GridBarrier &grid_barrier, const float *scales, const u16 *gate,
    const Iteration &it, const ThreadPosition &p) {
    constexpr bool DOWN = SLICE == DOWN_SLICE, QUANTIZES = DOWN && TILES_M == 1;
    const int token = p.thread / 8, n = p.thread % 8, first_tile = p.cluster * RESIDUAL_TILES;
    if (p.thread >= SCALE_THREAD && p.thread < SCALE_THREAD + 8 * RESIDUAL_ROUNDS) {
        const int i = p.thread - SCALE_THREAD, output = min((first_tile + p.rank + i / 8 * RANKS) * 8 + n, WIDTH - 1);
        shared<float>(AT_WEIGHT_SCALES + 4 * i) = __ldg(scales + it.layer * WIDTH + output);
        shared<float>(AT_GATES + 4 * i) = to_float(__ldg(gate + output));
    }
    if (p.thread == COPY_THREAD && p.cta * 8 < WIDTH) prefetch_l2(scales + it.next * WIDTH + p.cta * 8, 32);
    if (p.thread == EXPECT_THREAD) {
        if (QUANTIZES) expect_bytes(HIDDEN_AMAX_IN, TOKENS * RANKS * 4);
        expect_bytes(PARTIAL_SUMS_IN, (RESIDUAL_TILES - p.rank + RANKS - 1) / RANKS * RANKS * TOKENS * 32);
    }
    grid_barrier.wait();
    u16 *const from = stream_of(g, DOWN ? AFTER_ATTENTION : it.parity ^ 1);
    u16 *const to = stream_of(g, DOWN ? it.parity : AFTER_ATTENTION);
    float before[RESIDUAL_ROUNDS] = {};
#pragma unroll
    for (int i = 0; i < RESIDUAL_ROUNDS; i++) {
        const int tile = p.rank + i * RANKS, output = (first_tile + tile) * 8 + n;
        if (token < TOKENS && tile < RESIDUAL_TILES && output < WIDTH)
            before[i] = to_float(load_l2(from + token * WIDTH + output));
    }
    if (QUANTIZES)
        quantize_slice<SLICE>(g.hidden + it.parity * TOKENS * HIDDEN, it.parity, p);
    else if (DOWN)
        load_codes<SLICE>(g.hidden_codes + it.parity * TOKENS * HIDDEN, g.hidden_scales + it.parity * TOKENS, p);
    else
        load_codes<SLICE>(g.attn_codes + it.parity * TOKENS * ATTN_WIDTH, g.attn_scales + it.parity * TOKENS, p);
    wait_bytes(WEIGHT_IN, it.parity ^ !DOWN);   // used three times per layer: qkv, o, down
    __syncthreads();
    const float token_scale = shared<float>(AT_SCALES + 4 * min(token, ROWS - 1));
    store_partial_sums<SLICE>(p);
    if (RESIDUAL_EARLY) {
        // The next norm's codes of a token overwrite those that are multiplied here. With one tile of tokens they need all
        // results of all warps.
        if (TILES_M > 1) __syncthreads();
        grid_barrier.arrive();
    }
    if (p.thread < FINISHING) wait_bytes(PARTIAL_SUMS_IN, DOWN);   // used twice per layer
#pragma unroll
    for (int i = 0; i < RESIDUAL_ROUNDS; i++) {
        const int tile = p.rank + i * RANKS, output = (first_tile + tile) * 8 + n;
        if (token >= TOKENS || tile >= RESIDUAL_TILES || output >= WIDTH) continue;
        Sum sum = 0;
#pragma unroll
        for (int rank = 0; rank < RANKS; rank++)
            sum += shared<Sum>(AT_PARTIAL_SUMS + ((i * RANKS + rank) * ROWS + token) * 32 + n * 4);
        const float scale = shared<float>(AT_WEIGHT_SCALES + (i * 8 + n) * 4) * token_scale;
        const float after = before[i] + sum * scale * shared<float>(AT_GATES + (i * 8 + n) * 4);
        store_l2(to + token * WIDTH + output, to_bf16(after));
    }
    count_product(DOWN ? DOWN_DONE : O_DONE, p);
    if (RESIDUAL_EARLY) grid_barrier.finish();
    else grid_barrier.arrive_together();
}
