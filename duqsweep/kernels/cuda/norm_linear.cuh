// Start of a sublayer: norm and quantization of the residual stream, then the product of qkv or gate_up.
#pragma once
#include "quantize.cuh"
#include "products.cuh"

DEVICE const u16 *modulation_of(const Arguments &g, int step, int norm) {
    return g.modulations + ((u64)step * (2 * LAYERS + 1) + norm) * 3 * WIDTH;
}

struct NormInputs {
    u32 factor[LANE_CHANNELS / 2], shift[LANE_CHANNELS / 2], permutation[LANE_CHANNELS / 2];
};

DEVICE int first_channel(const ThreadPosition &p) { return (p.warp % TOKEN_WARPS * 32 + p.lane) * LANE_CHANNELS; }

DEVICE void load_norm(
    NormInputs &in, const u16 *modulation, const u16 *permutation, const ThreadPosition &p) {
    load_readonly(in.factor, modulation + first_channel(p));
    load_readonly(in.shift, modulation + WIDTH + first_channel(p));
    load_readonly(in.permutation, permutation + first_channel(p));
}

// Each rank norms and quantizes an eighth of the tokens and sends the result to all ranks of its cluster.
DEVICE void norm(const Arguments &g, const NormInputs &in, int parity, const ThreadPosition &p) {
    const int group = p.warp / TOKEN_WARPS, token = p.rank + RANKS * group, channel = first_channel(p);
    if (token < TOKENS) {
        u32 raw[LANE_CHANNELS / 2];
        load_l2(raw, g.stream + token * WIDTH + channel);
        float v[LANE_CHANNELS], sum = 0.f;
#pragma unroll
        for (int i = 0; i < LANE_CHANNELS / 2; i++) {
            v[2 * i] = low(raw[i]), v[2 * i + 1] = high(raw[i]);
            sum += v[2 * i] * v[2 * i] + v[2 * i + 1] * v[2 * i + 1];
            shared<u32>(AT_SUMS + group * 2 * WIDTH + 2 * channel + 4 * i) = raw[i];
        }
        sum = warp_sum(sum);
        float *partial = &shared<float>(AT_WARP_PARTIALS);
        if (p.lane == 0) partial[p.warp] = sum;
        asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(32 * TOKEN_WARPS) : "memory");
        sum = 0.f;
#pragma unroll
        for (int i = 0; i < TOKEN_WARPS; i++) sum += partial[group * TOKEN_WARPS + i];
        const float inverse = rsqrtf(sum / WIDTH + EPS);
#pragma unroll
        for (int i = 0; i < LANE_CHANNELS; i++) {
            const u32 factor = in.factor[i / 2], shift = in.shift[i / 2];
            const u32 source = i % 2 ? in.permutation[i / 2] >> 16 : in.permutation[i / 2] & 0xffff;
            v[i] = to_float(shared<u16>(AT_SUMS + group * 2 * WIDTH + 2 * source));
            const float times = i % 2 ? high(factor) : low(factor), plus = i % 2 ? high(shift) : low(shift);
            v[i] = round_bf16(v[i] * inverse * times + plus);
        }
        rotate(v, p.lane);
        float amax = values_amax(v);
        partial += WARPS;
        if (p.lane == 0) partial[p.warp] = amax;
        asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(32 * TOKEN_WARPS) : "memory");
#pragma unroll
        for (int i = 0; i < TOKEN_WARPS; i++) amax = fmaxf(amax, partial[group * TOKEN_WARPS + i]);
        const float scale = scale_of(amax);
        u32 words[LANE_CHANNELS / 4];
        pack(words, v, scale);
        if constexpr (LANE_CHANNELS == 4) {   // each lane sends the codes of its group of four lanes to two ranks
            u32 all[4];
#pragma unroll
            for (int i = 0; i < 4; i++) all[i] = __shfl_sync(~0u, words[0], p.lane / 4 * 4 + i);
            const int here = AT_CODES + token * PITCH + channel / 16 * 16, rank = p.lane % 4 * 2;
            remote_store(here, rank, CODES_IN, all[0], all[1], all[2], all[3]);
            remote_store(here, rank + 1, CODES_IN, all[0], all[1], all[2], all[3]);
        } else {
#pragma unroll
            for (int rank = 0; rank < RANKS; rank++)
                remote_store(
                    AT_CODES + token * PITCH + channel, rank, CODES_IN, words[0], words[1], words[2], words[3]);
        }
        if (p.warp % TOKEN_WARPS == 0 && p.lane < RANKS)
            remote_store(AT_SCALES + 4 * token, p.lane, CODES_IN, __float_as_uint(scale));
    }
    wait_bytes(CODES_IN, parity);
}
DEVICE void expect_codes() { expect_bytes(CODES_IN, TOKENS * (WIDTH + 4)); }

// The product after a norm. Calls `finish(tile, token, pair, first, second)` for each pair of adjacent outputs, with
// their integer sums. With one tile of tokens, warps also divide the input channels and add up through shared memory;
// with more, warps divide the tokens.
template <int TILES, typename Finish>
DEVICE void norm_product(int weight, const ThreadPosition &p, Finish finish) {
    constexpr int ROUNDS = (TILES + 3) / 4, STRIDE = fragment_bytes(1, WIDTH);
    int sums[ROUNDS][4];
    if constexpr (TILES_M == 1) {
        const int first = p.warp % 4, span = p.warp / 4, tiles = (TILES - first + 3) / 4;
        const int from = weight + first * STRIDE + span * (STRIDE / SPANS);
        product<TILES / 4, ROUNDS, SPAN_STEPS>(
            sums, AT_CODES + span * SPAN_STEPS * 32, PITCH, from, 4 * STRIDE, tiles, p.lane);
#pragma unroll
        for (int t = 0; t < ROUNDS; t++) {
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
        product<TILES / 4, ROUNDS, SPANS * SPAN_STEPS>(
            sums, AT_CODES + m * 16 * PITCH, PITCH, weight + first * STRIDE, 4 * STRIDE, tiles, p.lane);
#pragma unroll
        for (int t = 0; t < ROUNDS; t++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int token = m * 16 + half * 8 + p.lane / 4;
                if (t < tiles && token < TOKENS)
                    finish(first + 4 * t, token, p.lane % 4, sums[t][2 * half], sums[t][2 * half + 1]);
            }
    }
}

// Applies the scales of weight and token to two outputs.
DEVICE float2 scaled(int tile, int token, int pair, float first, float second) {
    const float2 scales = shared<float2>(AT_WEIGHT_SCALES + (tile * 8 + 2 * pair) * 4);
    const float scale = shared<float>(AT_SCALES + 4 * token);
    return {first * scales.x * scale, second * scales.y * scale};
}
