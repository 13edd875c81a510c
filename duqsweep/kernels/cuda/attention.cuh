// Attention of the action tokens over the prefix and over one another.
//
// A cluster computes a few tokens, all heads. The keys are divided among its ranks (CTAs); each rank then combines the
// partial results of its slice of o's permuted input. If CHUNKED, a rank whose keys do not fit into its shared memory handles
// them in chunks: after each one, it rescales the sums so far to the largest score so far.
#pragma once
#include "quantize.cuh"
#include "products.cuh"

constexpr int COLUMNS = CLUSTER_TOKENS * HEADS;   // (token, head) pairs
// A unit of scores is a key tile with one token, or two that share the loads of the keys. Units per warp:
constexpr int UNIT_TOKENS = CLUSTER_TOKENS < 3 ? 1 : 2, TILE_UNITS = (CLUSTER_TOKENS + UNIT_TOKENS - 1) / UNIT_TOKENS;
constexpr int UNITS = (MAX_KEYS / 16 * TILE_UNITS + WARPS - 1) / WARPS;
using Scores = float[UNITS][UNIT_TOKENS][4];

// Copies to shared memory the queries, before the first chunk of keys, and the action tokens' own keys and values, behind
// the chunk's ones of the prefix, which are there already. CHECK: returns whether the thread has copied what is not
// written yet.
template <bool CHECK>
DEVICE bool gather_once(const Arguments &g, const KeyChunk &chunk, int parity, const ThreadPosition &p) {
    const int first = p.cluster * CLUSTER_TOKENS, end = CHUNKED ? min(p.keys, chunk.first_row + chunk.rows) : p.keys;
    bool unwritten = false;
    if (!CHUNKED || chunk.number == 0)
        for (int i = p.thread; i < COLUMNS * 32; i += THREADS)
            if (first + i / 32 / HEADS < TOKENS)
                unwritten |= copy_written<CHECK>(AT_QUERIES + i / 32 * KEY_PITCH + i % 32 * 16,
                                                 g.queries + (parity * TOKENS + first) * ATTN_WIDTH + i * 8);
    for (int row = max(chunk.first_row, g.prefix - p.first_key) + p.warp; row < end; row += WARPS) {
        const int own = (parity * TOKENS + p.first_key + row - g.prefix) * DIM + p.lane * 8;
        const int to = (row - chunk.first_row) * KEY_PITCH + p.lane * 16;
        unwritten |= copy_written<CHECK>(chunk.at_keys + to, g.keys + own);
        unwritten |= copy_written<CHECK>(chunk.at_values + to, g.values + own);
    }
    return unwritten;
}
DEVICE void gather(const Arguments &g, const KeyChunk &chunk, int parity, const ThreadPosition &p) {
    do {
        gather_once<false>(g, chunk, parity, p);
        wait_copies();
    } while (gather_once<true>(g, chunk, parity, p));
}

// Scores of a warp's units; stores the maximum of each key tile.
DEVICE void compute_scores(Scores &scores, const KeyChunk &chunk, const ThreadPosition &p) {
    constexpr int CHAINS = 4 / UNIT_TOKENS;   // independent accumulators, to hide the latency of mma
    const int tiles = chunk.rows / 16, keys = p.keys - chunk.first_row;
#pragma unroll
    for (int unit = 0; unit < UNITS; unit++) {
        const int number = p.warp + unit * WARPS, tile = number / TILE_UNITS, first = number % TILE_UNITS * UNIT_TOKENS;
        if (tile >= tiles) continue;
        float parts[UNIT_TOKENS][CHAINS][4] = {};
        const u32 key = smem_addr(chunk.at_keys) + (tile * 16 + p.lane % 16) * KEY_PITCH + p.lane / 16 * 16;
        const u32 query = smem_addr(AT_QUERIES) + (first * HEADS + p.lane % 8) * KEY_PITCH + p.lane / 8 * 16;
#pragma unroll
        for (int step = 0; step < DIM / 16; step += 2) {
            u32 a[4], after[4], b[4];
            load_matrices(a, key + step * 32);
            load_matrices(after, key + step * 32 + 32);
#pragma unroll
            for (int u = 0; u < UNIT_TOKENS; u++) {
                if (first + u >= CLUSTER_TOKENS) continue;
                load_matrices(b, query + u * HEADS * KEY_PITCH + step * 32);
                mma(parts[u][step % CHAINS], a, b[0], b[1]);
                mma(parts[u][step % CHAINS + 1], after, b[2], b[3]);
            }
        }
        const int row = tile * 16 + p.lane / 4;
#pragma unroll
        for (int u = 0; u < UNIT_TOKENS; u++) {
            float (&own)[4] = scores[unit][u];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float sum = parts[u][0][i] + parts[u][1][i];
                if (CHAINS == 4) sum += parts[u][CHAINS - 2][i] + parts[u][CHAINS - 1][i];
                own[i] = row + i / 2 * 8 < keys ? sum * 0.0625f : LOWEST;
            }
            float even = fmaxf(own[0], own[2]), odd = fmaxf(own[1], own[3]);
#pragma unroll
            for (int mask = 4; mask < 32; mask *= 2) {
                even = fmaxf(even, __shfl_xor_sync(~0u, even, mask));
                odd = fmaxf(odd, __shfl_xor_sync(~0u, odd, mask));
            }
            if (p.lane < 4 && first + u < CLUSTER_TOKENS)
                shared<float2>(AT_KEY_MAX + (tile * COLUMNS + (first + u) * HEADS + 2 * p.lane) * 4) = {even, odd};
        }
    }
}

// Unnormalised softmax over the chunk's keys, stored in bfloat16, and its sum in float.
DEVICE void softmax(const Scores &scores, const KeyChunk &chunk, const ThreadPosition &p) {
    const int tiles = chunk.rows / 16;
#pragma unroll
    for (int unit = 0; unit < UNITS * UNIT_TOKENS; unit++) {
        const int number = p.warp + unit / UNIT_TOKENS * WARPS, tile = number / TILE_UNITS;
        const int n = number % TILE_UNITS * UNIT_TOKENS + unit % UNIT_TOKENS, column = n * HEADS + p.lane % 4 * 2;
        const float (&own)[4] = scores[unit / UNIT_TOKENS][unit % UNIT_TOKENS];
        if (tile >= tiles || n >= CLUSTER_TOKENS) continue;
        float2 largest = {LOWEST, LOWEST}, sum = {0.f, 0.f};
        if (CHUNKED && chunk.number > 0) largest = shared<float2>(AT_EARLIER_MAX + column * 4);
        const float2 earlier = largest;
        for (int other = 0; other < tiles; other++) {
            const float2 found = shared<float2>(AT_KEY_MAX + (other * COLUMNS + column) * 4);
            largest = {fmaxf(largest.x, found.x), fmaxf(largest.y, found.y)};
        }
        if (CHUNKED && chunk.number > 0 && tile == 0 && p.lane < 4)
            shared<float2>(AT_RESCALE + column * 4) = {__expf(earlier.x - largest.x), __expf(earlier.y - largest.y)};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float maximum = i % 2 ? largest.y : largest.x;
            const float prob = own[i] > LOWEST ? __expf(own[i] - maximum) : 0.f;
            (i % 2 ? sum.y : sum.x) += prob;
            const int row = tile * 16 + p.lane / 4 + i / 2 * 8;
            shared<u16>(AT_PROBS + (column + i % 2) * PROB_PITCH + 2 * row) = to_bf16(prob);
        }
#pragma unroll
        for (int mask = 4; mask < 32; mask *= 2) {
            sum.x += __shfl_xor_sync(~0u, sum.x, mask);
            sum.y += __shfl_xor_sync(~0u, sum.y, mask);
        }
        if (p.lane < 4) shared<float2>(AT_KEY_SUMS + (tile * COLUMNS + column) * 4) = sum;
    }
}

// Adds the probabilities times the chunk's values (transposed): 16 channels of all heads per warp.
DEVICE void weigh_values(float (&sums)[CLUSTER_TOKENS][4], const KeyChunk &chunk, const ThreadPosition &p) {
    const int tiles = chunk.rows / 16;
    if (CHUNKED && chunk.number > 0) {
#pragma unroll
        for (int n = 0; n < CLUSTER_TOKENS; n++) {
            const float2 factors = shared<float2>(AT_RESCALE + (n * HEADS + p.lane % 4 * 2) * 4);
            sums[n][0] *= factors.x, sums[n][1] *= factors.y, sums[n][2] *= factors.x, sums[n][3] *= factors.y;
        }
    }
    const u32 value = smem_addr(chunk.at_values) + (p.lane % 8 + p.lane / 16 * 8) * KEY_PITCH + p.warp * 32 +
                      p.lane / 8 % 2 * 16;
    const u32 prob = smem_addr(AT_PROBS) + p.lane % 8 * PROB_PITCH + p.lane / 8 % 2 * 16;
#pragma unroll 4
    for (int tile = 0; tile < tiles; tile++) {
        u32 a[4];
        load_matrices_transposed(a, value + tile * 16 * KEY_PITCH);
#pragma unroll
        for (int n = 0; n < CLUSTER_TOKENS; n++) {
            u32 b0, b1;
            load_two_matrices(b0, b1, prob + n * HEADS * PROB_PITCH + tile * 32);
            mma(sums[n], a, b0, b1);
        }
    }
}

// The largest score and the sum of the softmax of a column, from the first key to the end of the chunk.
DEVICE float2 stats_of(const KeyChunk &chunk, int column) {
    float2 stats = {LOWEST, 0.f};
    for (int tile = 0; tile < chunk.rows / 16; tile++) {
        stats.x = fmaxf(stats.x, shared<float>(AT_KEY_MAX + (tile * COLUMNS + column) * 4));
        stats.y += shared<float>(AT_KEY_SUMS + (tile * COLUMNS + column) * 4);
    }
    if (CHUNKED && chunk.number > 0) {
        stats.x = fmaxf(stats.x, shared<float>(AT_EARLIER_MAX + column * 4));
        stats.y += shared<float>(AT_EARLIER_SUMS + column * 4) * shared<float>(AT_RESCALE + column * 4);
    }
    return stats;
}

// Where a thread's sums of a token go in o's permuted input.
using Places = u16[4];
constexpr int SLICE_PITCH = DIM + 4;

// The head and the channel within it of the thread's ith sum.
DEVICE int head_of(int i, const ThreadPosition &p) { return p.lane % 4 * 2 + i % 2; }
DEVICE int channel_of(int i, const ThreadPosition &p) { return p.warp * 16 + p.lane / 4 + i / 2 * 8; }

// volatile, so that the loads start before the grid barrier; nothing waits for them there.
DEVICE void load_places(Places &places, const u16 *permutation, const ThreadPosition &p) {
#pragma unroll
    for (int i = 0; i < 4; i++)
        asm volatile("ld.global.nc.u16 %0, [%1];"
                     : "=h"(places[i]) : "l"(permutation + head_of(i, p) * DIM + channel_of(i, p)));
}

// Sends the rank's partial result of each slice of o's permuted input to the rank that has the slice, after the last chunk.
// Also stores which heads this rank's slice comes from.
DEVICE void send_partials(
    const float (&sums)[CLUSTER_TOKENS][4], const Places &places, const KeyChunk &chunk, const ThreadPosition &p) {
    // (tokens, RANKS, SLICE_PITCH) float, where no warp reads any more.
    const int at_own = chunk.number % 2 ? AT_VALUES : AT_KEYS;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int rank = places[i] / DIM, channel = places[i] % DIM;
        if (rank == p.rank) shared<unsigned char>(AT_SOURCE_HEADS + channel) = head_of(i, p);
#pragma unroll
        for (int n = 0; n < CLUSTER_TOKENS; n++)
            shared<float>(at_own + ((n * RANKS + rank) * SLICE_PITCH + channel) * 4) = sums[n][i];
    }
    fence_before_bulk_load();   // gate_up's fragments overwrite the keys, too
    __syncthreads();
    if (CLUSTER_TOKENS > 1) {
        const int column = p.warp + p.lane * WARPS;   // a copy takes long to start, so that all warps share the starts
        if (column < COLUMNS) {
            const int to = AT_PARTIALS + (p.rank * CLUSTER_TOKENS + column / RANKS) * DIM * 4;
            bulk_send(to, column % RANKS, at_own + column * SLICE_PITCH * 4, DIM * 4, PARTIALS_IN);
        }
    } else {
#pragma unroll
        for (int i = p.thread; i < COLUMNS * DIM / 4; i += THREADS) {
            const int n = i / (DIM / 4) / RANKS, rank = i / (DIM / 4) % RANKS, d = i % (DIM / 4) * 4;
            const uint4 part = shared<uint4>(at_own + ((n * RANKS + rank) * SLICE_PITCH + d) * 4);
            const int to = AT_PARTIALS + ((p.rank * CLUSTER_TOKENS + n) * DIM + d) * 4;
            remote_store(to, rank, PARTIALS_IN, part.x, part.y, part.z, part.w);
        }
    }
    static_assert(COLUMNS * RANKS <= THREADS);
    if (p.thread < COLUMNS * RANKS) {
        const float2 stats = stats_of(chunk, p.thread / RANKS);
        const int to = AT_SOFTMAX_STATS + (p.rank * COLUMNS + p.thread / RANKS) * 8;
        remote_store(to, p.thread % RANKS, PARTIALS_IN, __float_as_uint(stats.x), __float_as_uint(stats.y));
    }
}

// Combines all ranks' partial results of this rank's slice.
DEVICE void combine_partials(int first, const ThreadPosition &p) {
    constexpr int ROUNDS = (CLUSTER_TOKENS * DIM + THREADS - 1) / THREADS;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        const int n = p.thread / DIM + i * (THREADS / DIM), d = p.thread % DIM;
        if (n >= CLUSTER_TOKENS || first + n >= TOKENS) continue;
        const int column = n * HEADS + shared<unsigned char>(AT_SOURCE_HEADS + d);
        float2 stats[RANKS];
        float largest = LOWEST, sum = 0.f, total = 0.f;
#pragma unroll
        for (int rank = 0; rank < RANKS; rank++) {
            stats[rank] = shared<float2>(AT_SOFTMAX_STATS + (rank * COLUMNS + column) * 8);
            largest = fmaxf(largest, stats[rank].x);
        }
#pragma unroll
        for (int rank = 0; rank < RANKS; rank++) {
            const float part = __expf(stats[rank].x - largest);
            sum += part * stats[rank].y;
            total += part * shared<float>(AT_PARTIALS + ((rank * CLUSTER_TOKENS + n) * DIM + d) * 4);
        }
        shared<float>(AT_ATTN + (n * DIM + d) * 4) = round_bf16(__fdividef(total, sum));
    }
}

// Quantizes the rank's slice of the permuted channels: one warp per token.
DEVICE void quantize_attention(
    const Arguments &g, GridBarrier &grid_barrier, int first, int own, int parity, const ThreadPosition &p) {
    constexpr int N = DIM / 32;
    float v[N] = {};
    if (p.warp < own) {
#pragma unroll
        for (int i = 0; i < N; i++) v[i] = shared<float>(AT_ATTN + (p.warp * DIM + p.lane * N + i) * 4);
    }
    if (TILES_M > 1) __syncthreads();   // partial sums of o overwrite what attention has in shared memory
    grid_barrier.arrive();
    if (p.warp >= own) return;
    rotate(v, p.lane);
    const float scale = scale_of(cluster_amax(values_amax(v), ATTN_AMAX_IN, parity, p));
    u32 words[N / 4];
    pack(words, v, scale);
    const int row = parity * TOKENS + first + p.warp;
    store_l2(g.attn_codes + row * ATTN_WIDTH + p.rank * DIM + p.lane * N, words[0], words[1]);
    if (p.rank == 0 && p.lane == 0) store_l2(g.attn_scales + row, __float_as_uint(scale));
}

// Adds a chunk of keys to the sums, and starts the copy of the next chunk, if there is one.
DEVICE void attend_to_chunk(
    float (&sums)[CLUSTER_TOKENS][4], const Arguments &g, const KeyChunk &chunk, const Iteration &it,
    const ThreadPosition &p) {
    const bool more = CHUNKED && chunk.first_row + chunk.rows < p.key_rows;
    gather(g, chunk, it.parity, p);
    __syncthreads();
    Scores scores = {};
    compute_scores(scores, chunk, p);
    if (more) fence_before_bulk_load();
    __syncthreads();
    if (more) bulk_load_keys(g, keys_after(chunk, p), it.layer, p);
    softmax(scores, chunk, p);
    __syncthreads();
    weigh_values(sums, chunk, p);
}

DEVICE void attention_phase(
    const Arguments &g, GridBarrier &grid_barrier, const Iteration &it, const ThreadPosition &p) {
    const int first = p.cluster * CLUSTER_TOKENS, own = min(CLUSTER_TOKENS, TOKENS - first);
    if (own > 0 && p.thread == EXPECT_THREAD) {
        expect_bytes(PARTIALS_IN, RANKS * CLUSTER_TOKENS * (4 * DIM + 8 * HEADS));
        expect_bytes(ATTN_AMAX_IN, own * RANKS * 4);
    }
    Places places;
    load_places(places, g.permutations + (it.layer * 4 + 2) * WIDTH, p);
    grid_barrier.wait();
    const bool resets = p.cluster >= CLUSTERS - RESETTING;
    if (resets) reset_buffers(g, it.parity, it.parity ^ 1, p);
    if (own > 0) {
        wait_bytes(KEYS_IN, it.parity);
        float sums[CLUSTER_TOKENS][4] = {};
        KeyChunk chunk = first_keys(p);
        const int more = (p.key_rows - chunk.rows + MORE_KEYS - 1) / MORE_KEYS;   // chunks
#pragma unroll 1
        while (true) {
            attend_to_chunk(sums, g, chunk, it, p);
            if (!CHUNKED || chunk.number == more) break;
            if (p.thread < COLUMNS) {
                const float2 stats = stats_of(chunk, p.thread);
                shared<float>(AT_EARLIER_MAX + p.thread * 4) = stats.x;
                shared<float>(AT_EARLIER_SUMS + p.thread * 4) = stats.y;
            }
            wait_bytes(MORE_KEYS_IN, (it.parity * more + chunk.number) & 1);
            chunk = keys_after(chunk, p);
        }
        send_partials(sums, places, chunk, p);
        wait_bytes(PARTIALS_IN, it.parity);
        combine_partials(first, p);
        if (resets) wait_for_writes();
        __syncthreads();
        quantize_attention(g, grid_barrier, first, own, it.parity, p);
    } else {
        wait_for_writes();
        __syncthreads();
        grid_barrier.arrive();
    }
    grid_barrier.finish();
}
