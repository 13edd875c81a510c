// What opens a sublayer: norm and codes of the stream, and the product behind them.
#pragma once
#include "codes.cuh"
#include "products.cuh"

__device__ __forceinline__ const u16 *modulation_of(const Arguments &g, int step, int norm) {
    return g.modulations + ((u64)step * (2 * LAYERS + 1) + norm) * 3 * WIDTH;
}

struct NormInputs {
    u32 factor[SPREAD / 2], shift[SPREAD / 2], order[SPREAD / 2];
};

__device__ __forceinline__ int first_channel(const Place &p) { return (p.warp % TOKEN_WARPS * 32 + p.lane) * SPREAD; }

__device__ __forceinline__ void load_norm(
    NormInputs &in, const u16 *modulation, const u16 *order, const Place &p) {
    load(in.factor, modulation + first_channel(p));
    load(in.shift, modulation + WIDTH + first_channel(p));
    load(in.order, order + first_channel(p));
}

// Each rank norms an eighth of the tokens and gives all ranks of its cluster what their products read.
__device__ __forceinline__ void norm(const Arguments &g, const NormInputs &in, int parity, const Place &p) {
    const int group = p.warp / TOKEN_WARPS, token = p.rank + RANKS * group, channel = first_channel(p);
    if (token < TOKENS) {
        u32 raw[SPREAD / 2];
        load_fresh(raw, g.stream + token * WIDTH + channel);
        float v[SPREAD], sum = 0.f;
#pragma unroll
        for (int i = 0; i < SPREAD / 2; i++) {
            v[2 * i] = low(raw[i]), v[2 * i + 1] = high(raw[i]);
            sum += v[2 * i] * v[2 * i] + v[2 * i + 1] * v[2 * i + 1];
            shared<u32>(AT_SUMS + group * 2 * WIDTH + 2 * channel + 4 * i) = raw[i];
        }
        sum = warp_sum(sum);
        float *partial = &shared<float>(AT_WARPS);
        if (p.lane == 0) partial[p.warp] = sum;
        asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(32 * TOKEN_WARPS) : "memory");
        sum = 0.f;
#pragma unroll
        for (int i = 0; i < TOKEN_WARPS; i++) sum += partial[group * TOKEN_WARPS + i];
        const float inverse = rsqrtf(sum / WIDTH + EPS);
#pragma unroll
        for (int i = 0; i < SPREAD; i++) {
            const u32 factor = in.factor[i / 2], shift = in.shift[i / 2];
            const u32 source = i % 2 ? in.order[i / 2] >> 16 : in.order[i / 2] & 0xffff;
            v[i] = wide(shared<u16>(AT_SUMS + group * 2 * WIDTH + 2 * source));
            const float times = i % 2 ? high(factor) : low(factor), plus = i % 2 ? high(shift) : low(shift);
            v[i] = rounded(v[i] * inverse * times + plus);
        }
        rotate(v, p.lane);
        float peak = peak_of(v);
        partial += WARPS;
        if (p.lane == 0) partial[p.warp] = peak;
        asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(32 * TOKEN_WARPS) : "memory");
#pragma unroll
        for (int i = 0; i < TOKEN_WARPS; i++) peak = fmaxf(peak, partial[group * TOKEN_WARPS + i]);
        const float scale = scale_of(peak);
        u32 words[SPREAD / 4];
        pack(words, v, scale);
        if constexpr (SPREAD == 4) {   // four lanes' codes together, to two ranks by each of the four
            u32 all[4];
#pragma unroll
            for (int i = 0; i < 4; i++) all[i] = __shfl_sync(~0u, words[0], p.lane / 4 * 4 + i);
            const int here = AT_CODES + token * PITCH + channel / 16 * 16, rank = p.lane % 4 * 2;
            push(here, rank, CODES_IN, all[0], all[1], all[2], all[3]);
            push(here, rank + 1, CODES_IN, all[0], all[1], all[2], all[3]);
        } else {
#pragma unroll
            for (int rank = 0; rank < RANKS; rank++)
                push(AT_CODES + token * PITCH + channel, rank, CODES_IN, words[0], words[1], words[2], words[3]);
        }
        if (p.warp % TOKEN_WARPS == 0 && p.lane < RANKS)
            push(AT_SCALES + 4 * token, p.lane, CODES_IN, __float_as_uint(scale));
    }
    await(CODES_IN, parity);
}
__device__ __forceinline__ void expect_codes() { expect(CODES_IN, TOKENS * (WIDTH + 4)); }

// The product behind a norm: calls `finish` with tile, token, pair of neighbouring outputs and their sums.
// One tile of tokens: the warps share channels, too, and sum up through shared memory. More: they share
// the tokens.
template <int TILES, typename Finish>
__device__ __forceinline__ void entry_product(int weight, const Place &p, Finish finish) {
    constexpr int TURNS = (TILES + 3) / 4, STRIDE = fragment_bytes(1, WIDTH);
    int sums[TURNS][4];
    if constexpr (TILES_M == 1) {
        const int first = p.warp % 4, span = p.warp / 4, tiles = (TILES - first + 3) / 4;
        const int from = weight + first * STRIDE + span * (STRIDE / SPANS);
        product<TILES / 4, TURNS, SPAN_STEPS>(
            sums, AT_CODES + span * SPAN_STEPS * 32, PITCH, from, 4 * STRIDE, tiles, p.lane);
#pragma unroll
        for (int t = 0; t < TURNS; t++) {
            if (t >= tiles) continue;
            const int row = (span * TILES + first + 4 * t) * ROWS + p.lane / 4;
            int *to = &shared<int>(AT_SUMS + row * 32) + p.lane % 4 * 2;
            to[0] = sums[t][0], to[1] = sums[t][1];
            to[64] = sums[t][2], to[65] = sums[t][3];
        }
        __syncthreads();
#pragma unroll
        for (int i = p.thread; i < TILES * TOKENS * 4; i += THREADS) {
            const int pair = i % 4, token = i / 4 % TOKENS, tile = i / 4 / TOKENS;
            int first = 0, second = 0;
#pragma unroll
            for (int span = 0; span < SPANS; span++) {
                const int *from = &shared<int>(AT_SUMS + ((span * TILES + tile) * ROWS + token) * 32) + 2 * pair;
                first += from[0], second += from[1];
            }
            finish(tile, token, pair, first, second);
        }
    } else {
        const int m = p.warp % 4, first = p.warp / 4, tiles = (TILES - first + 3) / 4;
        if (m >= TILES_M || tiles <= 0) return;
        product<TILES / 4, TURNS, SPANS * SPAN_STEPS>(
            sums, AT_CODES + m * 16 * PITCH, PITCH, weight + first * STRIDE, 4 * STRIDE, tiles, p.lane);
#pragma unroll
        for (int t = 0; t < TURNS; t++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int token = m * 16 + half * 8 + p.lane / 4;
                if (t < tiles && token < TOKENS)
                    finish(first + 4 * t, token, p.lane % 4, sums[t][2 * half], sums[t][2 * half + 1]);
            }
    }
}

// Two outputs of a program, scaled.
__device__ __forceinline__ float2 scaled(int tile, int token, int pair, float first, float second) {
    const float2 scales = shared<float2>(AT_WEIGHT_SCALES + (tile * 8 + 2 * pair) * 4);
    const float scale = shared<float>(AT_SCALES + 4 * token);
    return {first * scales.x * scale, second * scales.y * scale};
}
