// Attention of the tokens to the prefix and to one another. A cluster takes a few tokens, with all heads;
// its ranks share the keys, and what they mixed meets at the rank of the head's number.
#pragma once
#include "codes.cuh"
#include "peaks.cuh"
#include "products.cuh"

constexpr int COLUMNS = CLUSTER_TOKENS * HEADS;   // pairs of token and head
// Pairs of a tile of keys and a token, of a warp.
constexpr int UNITS = (KEYS / 16 * CLUSTER_TOKENS + WARPS - 1) / WARPS;

// Queries and the tokens' own keys and values into shared memory; the prefix's are on their way.
__device__ __forceinline__ void gather(const Arguments &g, int first, int parity, const Place &p) {
    for (int i = p.thread; i < COLUMNS * 32; i += THREADS)
        if (first + i / 32 / HEADS < TOKENS)
            copy_async(at(AT_QUERIES + i / 32 * KEY_PITCH + i % 32 * 16), g.queries + first * MIXED + i * 8);
    await(KEYS_IN, parity);
    for (int row = max(0, g.prefix - p.first_key) + p.warp; row < p.keys; row += WARPS) {
        const int own = (p.first_key + row - g.prefix) * DIM + p.lane * 8, to = row * KEY_PITCH + p.lane * 16;
        copy_async(at(AT_KEYS + to), g.keys + own);
        copy_async(at(AT_VALUES + to), g.values + own);
    }
    await_copies();
}

// Scores of a warp's units, and the largest of each tile of keys.
__device__ __forceinline__ void score(float (&scores)[UNITS][4], const Place &p) {
    const int tiles = p.key_rows / 16;
#pragma unroll
    for (int unit = 0; unit < UNITS; unit++) {
        const int number = p.warp + unit * WARPS, tile = number / CLUSTER_TOKENS, n = number % CLUSTER_TOKENS;
        if (tile >= tiles) continue;
        float parts[4][4] = {};
        const u32 key = at(AT_KEYS) + (tile * 16 + p.lane % 16) * KEY_PITCH + p.lane / 16 * 16;
        const u32 query = at(AT_QUERIES) + (n * HEADS + p.lane % 8) * KEY_PITCH + p.lane / 8 * 16;
#pragma unroll
        for (int step = 0; step < DIM / 16; step += 2) {
            u32 a[4], after[4], b[4];
            load_matrices(a, key + step * 32);
            load_matrices(after, key + step * 32 + 32);
            load_matrices(b, query + step * 32);
            multiply(parts[step % 4], a, b[0], b[1]);
            multiply(parts[step % 4 + 1], after, b[2], b[3]);
        }
        const int row = tile * 16 + p.lane / 4;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float sum = parts[0][i] + parts[1][i] + (parts[2][i] + parts[3][i]);
            scores[unit][i] = row + i / 2 * 8 < p.keys ? sum * 0.0625f : LOWEST;
        }
        float even = fmaxf(scores[unit][0], scores[unit][2]), odd = fmaxf(scores[unit][1], scores[unit][3]);
#pragma unroll
        for (int mask = 4; mask < 32; mask *= 2) {
            even = fmaxf(even, __shfl_xor_sync(~0u, even, mask));
            odd = fmaxf(odd, __shfl_xor_sync(~0u, odd, mask));
        }
        if (p.lane < 4) shared<float2>(AT_KEY_PEAKS + (tile * COLUMNS + n * HEADS + 2 * p.lane) * 4) = {even, odd};
    }
}

// Softmax over the keys of the rank, not divided by its sum, in bfloat16; and the sum.
__device__ __forceinline__ void share_out(const float (&scores)[UNITS][4], const Place &p) {
    const int tiles = p.key_rows / 16;
#pragma unroll
    for (int unit = 0; unit < UNITS; unit++) {
        const int number = p.warp + unit * WARPS, tile = number / CLUSTER_TOKENS, n = number % CLUSTER_TOKENS;
        if (tile >= tiles) continue;
        const int column = n * HEADS + p.lane % 4 * 2;
        float2 peak = {LOWEST, LOWEST}, sum = {0.f, 0.f};
        for (int other = 0; other < tiles; other++) {
            const float2 found = shared<float2>(AT_KEY_PEAKS + (other * COLUMNS + column) * 4);
            peak = {fmaxf(peak.x, found.x), fmaxf(peak.y, found.y)};
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float most = i % 2 ? peak.y : peak.x;
            const float share = scores[unit][i] > LOWEST ? __expf(scores[unit][i] - most) : 0.f;
            (i % 2 ? sum.y : sum.x) += share;
            const int row = tile * 16 + p.lane / 4 + i / 2 * 8;
            shared<u16>(AT_SHARES + (column + i % 2) * SHARE_PITCH + 2 * row) = narrow(share);
        }
#pragma unroll
        for (int mask = 4; mask < 32; mask *= 2) {
            sum.x += __shfl_xor_sync(~0u, sum.x, mask);
            sum.y += __shfl_xor_sync(~0u, sum.y, mask);
        }
        if (p.lane < 4) shared<float2>(AT_KEY_SUMS + (tile * COLUMNS + column) * 4) = sum;
    }
}

// Mixes the rank's values, turned: a warp 16 channels of all heads; a head's go to the rank of its number.
__device__ __forceinline__ void mix(const Place &p) {
    const int tiles = p.key_rows / 16;
    float mixed[CLUSTER_TOKENS][4] = {};
    const u32 value = at(AT_VALUES) + (p.lane % 8 + p.lane / 16 * 8) * KEY_PITCH + p.warp * 32 + p.lane / 8 % 2 * 16;
    const u32 share = at(AT_SHARES) + p.lane % 8 * SHARE_PITCH + p.lane / 8 % 2 * 16;
#pragma unroll 4
    for (int tile = 0; tile < tiles; tile++) {
        u32 a[4];
        load_turned(a, value + tile * 16 * KEY_PITCH);
#pragma unroll
        for (int n = 0; n < CLUSTER_TOKENS; n++) {
            u32 b0, b1;
            load_two_matrices(b0, b1, share + n * HEADS * SHARE_PITCH + tile * 32);
            multiply(mixed[n], a, b0, b1);
        }
    }
#pragma unroll
    for (int n = 0; n < CLUSTER_TOKENS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int d = p.warp * 16 + p.lane / 4 + i / 2 * 8, head = p.lane % 4 * 2 + i % 2;
            shared<float>(AT_OWN_PARTS + ((n * HEADS + head) * (DIM + 4) + d) * 4) = mixed[n][i];
        }
    __syncthreads();
#pragma unroll
    for (int i = p.thread; i < COLUMNS * DIM / 4; i += THREADS) {
        const int n = i / (DIM / 4) / HEADS, head = i / (DIM / 4) % HEADS, d = i % (DIM / 4) * 4;
        const uint4 part = shared<uint4>(AT_OWN_PARTS + ((n * HEADS + head) * (DIM + 4) + d) * 4);
        push(AT_PARTS + ((p.rank * CLUSTER_TOKENS + n) * DIM + d) * 4, head, PARTS_IN, part.x, part.y, part.z, part.w);
    }
    before_copies();   // of fragments into the keys' place
    if (p.thread < COLUMNS) {
        float peak = LOWEST, sum = 0.f;
        for (int tile = 0; tile < tiles; tile++) {
            peak = fmaxf(peak, shared<float>(AT_KEY_PEAKS + (tile * COLUMNS + p.thread) * 4));
            sum += shared<float>(AT_KEY_SUMS + (tile * COLUMNS + p.thread) * 4);
        }
        const int to = AT_SPREADS + (p.rank * CLUSTER_TOKENS + p.thread / HEADS) * 8;
        push(to, p.thread % HEADS, PARTS_IN, __float_as_uint(peak), __float_as_uint(sum));
    }
}

// The rank's head from what all ranks mixed; each channel to the rank in whose slice it is reordered.
__device__ __forceinline__ void combine(int first, int goes_to, const Place &p) {
    constexpr int TURNS = (CLUSTER_TOKENS * DIM + THREADS - 1) / THREADS;
#pragma unroll
    for (int i = 0; i < TURNS; i++) {
        const int n = p.thread / DIM + i * (THREADS / DIM), d = p.thread % DIM;
        if (n >= CLUSTER_TOKENS || first + n >= TOKENS) continue;
        float2 spreads[RANKS];
        float peak = LOWEST, sum = 0.f, total = 0.f;
#pragma unroll
        for (int rank = 0; rank < RANKS; rank++) {
            spreads[rank] = shared<float2>(AT_SPREADS + (rank * CLUSTER_TOKENS + n) * 8);
            peak = fmaxf(peak, spreads[rank].x);
        }
#pragma unroll
        for (int rank = 0; rank < RANKS; rank++) {
            const float part = __expf(spreads[rank].x - peak);
            sum += part * spreads[rank].y;
            total += part * shared<float>(AT_PARTS + ((rank * CLUSTER_TOKENS + n) * DIM + d) * 4);
        }
        const u32 mixed = narrow(0.f, __fdividef(total, sum));   // in the upper half: a float
        push(AT_MIXED + (n * DIM + goes_to % DIM) * 4, goes_to / DIM, MIXED_IN, mixed);
    }
}

// Codes of the rank's slice of the reordered channels: a warp a token.
__device__ __forceinline__ void leave_codes(const Arguments &g, int token, int parity, const Place &p) {
    constexpr int N = DIM / 32;
    float v[N];
#pragma unroll
    for (int i = 0; i < N; i++) v[i] = shared<float>(AT_MIXED + (p.warp * DIM + p.lane * N + i) * 4);
    rotate(v, p.lane);
    const float scale = scale_of(peak_of_ranks(peak_of(v), MIXED_PEAKS_IN, parity, p));
    u32 words[N / 4];
    pack(words, v, scale);
    *(uint2 *)(g.mixed_codes + token * MIXED + p.rank * DIM + p.lane * N) = {words[0], words[1]};
    if (p.rank == 0 && p.lane == 0) g.mixed_scales[token] = scale;
}

__device__ __forceinline__ void attend_phase(
    const Arguments &g, Meeting &meeting, const Turn &turn, const Place &p) {
    const int first = p.cluster * CLUSTER_TOKENS, own = min(CLUSTER_TOKENS, TOKENS - first);
    if (own > 0 && p.thread == EXPECTER) {
        expect(PARTS_IN, RANKS * CLUSTER_TOKENS * (4 * DIM + 8));
        expect(MIXED_IN, own * DIM * 4);
        expect(MIXED_PEAKS_IN, own * RANKS * 4);
    }
    const int goes_to = __ldg(g.orders + (turn.layer * 4 + 2) * WIDTH + p.rank * DIM + p.thread % DIM);
    meeting.wait();
    if (own > 0) {
        gather(g, first, turn.parity, p);
        __syncthreads();
        float scores[UNITS][4];
        score(scores, p);
        __syncthreads();
        share_out(scores, p);
        __syncthreads();
        mix(p);
        await(PARTS_IN, turn.parity);
        combine(first, goes_to, p);
        await(MIXED_IN, turn.parity);
        if (p.warp < own) leave_codes(g, first + p.warp, turn.parity, p);
    }
    meeting.arrive();
}
