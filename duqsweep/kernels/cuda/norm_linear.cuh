// Start of a sublayer: norm and quantization of the residual stream, then the product of qkv or gate_up.
#pragma once
#include "quantize.cuh"
#include "products.cuh"

DEVICE const u16 *modulation_of(const Arguments &g, int step, int norm) {
    return g.modulations + ((u64)step * (2 * LAYERS + 1) + norm) * 3 * WIDTH;
}

struct NormInputs {
    u32 factor[LANE_CHANNELS / 2], shift[LANE_CHANNELS / 2];
    u32 sources[LANE_CHANNELS / 2];   // where the permuted channels come from
};

DEVICE int first_channel(const ThreadPosition &p) { return (p.warp % TOKEN_WARPS * 32 + p.lane) * LANE_CHANNELS; }

DEVICE void load_norm(
    NormInputs &in, const u16 *modulation, const u16 *permutation, const ThreadPosition &p) {
    load_readonly(in.factor, modulation + first_channel(p));
    load_readonly(in.shift, modulation + WIDTH + first_channel(p));
    load_readonly(in.sources, permutation + first_channel(p));
}

// Each rank norms and quantizes some tokens of its part and sends the result to all ranks of the part.
DEVICE void norm(const u16 *stream, const NormInputs &in, int parity, const ThreadPosition &p) {
    const int group = p.warp / TOKEN_WARPS, channel = first_channel(p);
    const int row = p.rank % PART_RANKS + PART_RANKS * group, token = p.first_token + row;
    const int first_rank = p.rank / PART_RANKS * PART_RANKS;
    if (row < PART_TOKENS && token < TOKENS) {
        u32 raw[LANE_CHANNELS / 2];
        load_written(raw, stream + token * WIDTH + channel);
        float v[LANE_CHANNELS], even = 0.f, odd = 0.f;
#pragma unroll
        for (int i = 0; i < LANE_CHANNELS / 2; i++) {
            even = fmaf(low(raw[i]), low(raw[i]), even), odd = fmaf(high(raw[i]), high(raw[i]), odd);
            shared<u32>(AT_SUMS + group * 2 * WIDTH + 2 * channel + 4 * i) = raw[i];
        }
        float sum = warp_sum(even + odd);
        float *partial = &shared<float>(AT_WARP_PARTIALS);
        if (p.lane == 0) partial[p.warp] = sum;
        asm volatile("bar.sync %0, %1;" ::"r"(1 + group), "n"(32 * TOKEN_WARPS) : "memory");
        sum = 0.f;
#pragma unroll
        for (int i = 0; i < TOKEN_WARPS; i++) sum += partial[group * TOKEN_WARPS + i];
        const float inverse = rsqrtf(sum / WIDTH + EPS);
#pragma unroll
        for (int i = 0; i < LANE_CHANNELS / 2; i++) {
            const u32 factor = in.factor[i], shift = in.shift[i], sources = in.sources[i];
            const int token_at = AT_SUMS + group * 2 * WIDTH;
            const float first = to_float(shared<u16>(token_at + 2 * (sources & 0xffff)));
            const float second = to_float(shared<u16>(token_at + 2 * (sources >> 16)));
            const u32 pair = to_bf16(first * inverse * low(factor) + low(shift),
                                     second * inverse * high(factor) + high(shift));
            v[2 * i] = low(pair), v[2 * i + 1] = high(pair);
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
            static_assert(LANE_CHANNELS > 4 || PARTS == 1);
            const int here = AT_CODES + row * PITCH + channel / 16 * 16, rank = p.lane % 4 * 2;
            remote_store(here, rank, CODES_IN, all[0], all[1], all[2], all[3]);
            remote_store(here, rank + 1, CODES_IN, all[0], all[1], all[2], all[3]);
        } else {
#pragma unroll
            for (int i = 0; i < PART_RANKS; i++)
                remote_store(AT_CODES + row * PITCH + channel, first_rank + i, CODES_IN,
                             words[0], words[1], words[2], words[3]);
        }
        if (p.warp % TOKEN_WARPS == 0 && p.lane < PART_RANKS)
            remote_store(AT_SCALES + 4 * row, first_rank + p.lane, CODES_IN, __float_as_uint(scale));
    }
    wait_bytes(CODES_IN, parity);
}
DEVICE void expect_codes(const ThreadPosition &p) {
    expect_bytes(CODES_IN, min(PART_TOKENS, TOKENS - p.first_token) * (WIDTH + 4));
}

// The product after a norm. Calls `finish(tile, row, pair, first, second)` for each pair of adjacent outputs, with
// their sums; row: number of the token in its part. Warps divide tiles of tokens, groups of output tiles and spans of
// input channels, so that few of them read the same operand; the spans are added up through shared memory.
template <int TILES, bool ARRIVE, typename Finish>
DEVICE void norm_product(int weight, GridBarrier &grid_barrier, const ThreadPosition &p, Finish finish) {
    constexpr int M_WARPS = PART_TILES_M == 3 ? 4 : PART_TILES_M;
    constexpr int GROUPS = M_WARPS == 1 ? 4 : (TILES * M_WARPS <= 16 ? 4 : 8) / M_WARPS;
    constexpr int SPANS = WARPS / M_WARPS / GROUPS, STEPS = WIDTH / 32 / SPANS, STRIDE = fragment_bytes(1, WIDTH);
    constexpr int ROUNDS = (TILES + GROUPS - 1) / GROUPS, TILE_BYTES = PART_ROWS * 32 + 32;
    constexpr int AT = M_WARPS == 1 ? AT_SUMS : AT_CODES;   // of the sums
    static_assert(AT + SPANS * TILES * TILE_BYTES <= AT_SUMS + SUMS_BYTES, "no space for the sums");
    const int m = p.warp % M_WARPS, group = p.warp / M_WARPS % GROUPS, span = p.warp / M_WARPS / GROUPS;
    const int tiles = m < PART_TILES_M ? (TILES - group + GROUPS - 1) / GROUPS : 0;
    Sum sums[ROUNDS][4] = {};
    if (tiles > 0)
        product<TILES / GROUPS, ROUNDS, STEPS>(
            sums, AT_CODES + m * 16 * PITCH + span * STEPS * 32, PITCH,
            weight + group * STRIDE + span * (STRIDE / SPANS), GROUPS * STRIDE, tiles, p.lane);
    if (AT == AT_CODES) __syncthreads();   // the sums overwrite the codes
#pragma unroll
    for (int t = 0; t < ROUNDS; t++) {
        if (t >= tiles) continue;
        const int tile = span * TILES + group + GROUPS * t, row = m * 16 + p.lane / 4;
        Sum *to = &shared<Sum>(AT + tile * TILE_BYTES + row * 32) + p.lane % 4 * 2;
        to[0] = sums[t][0], to[1] = sums[t][1];
        to[64] = sums[t][2], to[65] = sums[t][3];
    }
    __syncthreads();
    if (ARRIVE) grid_barrier.arrive();
#pragma unroll
    for (int i = p.thread; i < TILES * PART_TOKENS * 4 && p.thread < FINISHING; i += FINISHING) {
        const int pair = i % 4, tile = i / 4 % TILES, row = i / 4 / TILES;   // adjacent outputs are stored together
        if (PARTS > 1 && p.first_token + row >= TOKENS) continue;
        Sum first = 0, second = 0;
#pragma unroll
        for (int other = 0; other < SPANS; other++) {
            const Sum *from = &shared<Sum>(AT + (other * TILES + tile) * TILE_BYTES + row * 32) + 2 * pair;
            first += from[0], second += from[1];
        }
        finish(tile, row, pair, first, second);
    }
}

// Applies the scales of weight and token to two outputs.
DEVICE float2 scaled(int tile, int row, int pair, float first, float second) {
    const float2 scales = shared<float2>(AT_WEIGHT_SCALES + (tile * 8 + 2 * pair) * 4);
    const float scale = shared<float>(AT_SCALES + 4 * row);
    return {first * scales.x * scale, second * scales.y * scale};
}
