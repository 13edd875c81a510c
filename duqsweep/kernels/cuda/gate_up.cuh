// GELU of the gate times up, its channels in the order of `down`'s permuted input; quantized here for many tokens.
#pragma once
#include "norm_linear.cuh"

DEVICE float gelu(float x) {
    return __fdividef(x, 1.f + __expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
}

DEVICE void gate_up_phase(const Arguments &g, GridBarrier &grid_barrier, const Iteration &it, const ThreadPosition &p) {
    const int layer = it.layer;
    NormInputs in;
    load_norm(in, modulation_of(g, it.step, 2 * layer + 1), g.permutations + (layer * 4 + 1) * WIDTH, p);
    if (p.thread >= SCALE_THREAD && p.thread < SCALE_THREAD + GATE_UP_TILES * 8)
        shared<float>(AT_WEIGHT_SCALES + 4 * (p.thread - SCALE_THREAD)) =
            __ldg(g.gate_up_scales + (layer * SETS + p.set) * GATE_UP_TILES * 8 + p.thread - SCALE_THREAD);
    if (p.thread == EXPECT_THREAD) expect_codes(p);
    if (p.thread == COPY_THREAD) {
        prefetch_l2(g.gate_up + ((u64)it.next * SETS + p.set) * GATE_UP_BYTES, GATE_UP_BYTES);
        prefetch_l2(g.down + ((u64)it.next * CTAS + p.cta) * DOWN_BYTES, DOWN_BYTES);
        prefetch_l2(g.gate_up_scales + (it.next * SETS + p.set) * GATE_UP_TILES * 8, GATE_UP_TILES * 32);
    }
    grid_barrier.wait();
    norm(stream_of(g, AFTER_ATTENTION), in, 1, p);
    wait_bytes(GATE_UP_IN, it.parity);
    const auto finish = [&](int tile, int row, int pair, float first, float second) {
        const int channel = (p.set * GATE_UP_TILES + tile) * 4 + pair;
        if (channel >= HIDDEN) return;
        const float2 both = scaled(tile, row, pair, first, second);
        const int at = (it.parity * TOKENS + p.first_token + row) * HIDDEN + channel;
        store_l2(g.hidden + at, to_bf16(gelu(both.x) * both.y));
    };
    norm_product<GATE_UP_TILES, true>(AT_GATE_UP, grid_barrier, p, finish);
    count_product(GATE_UP_DONE, p);
    grid_barrier.finish();
}

// Quantizes the hidden channels where there are more than 16 tokens: one CTA per token.
DEVICE void quantize_hidden_phase(
    const Arguments &g, GridBarrier &grid_barrier, const Iteration &it, const ThreadPosition &p) {
    constexpr int N = HIDDEN / THREADS;
    grid_barrier.wait();
    if (p.cta < TOKENS) {
        u32 raw[N / 2];
        load_written(raw, g.hidden + (it.parity * TOKENS + p.cta) * HIDDEN + p.thread * N);
        float v[N];
#pragma unroll
        for (int i = 0; i < N / 2; i++) v[2 * i] = low(raw[i]), v[2 * i + 1] = high(raw[i]);
        rotate(v, p.lane);
        float amax = values_amax(v);
        float *warp_amaxes = &shared<float>(AT_WARP_PARTIALS);
        if (p.lane == 0) warp_amaxes[p.warp] = amax;
        __syncthreads();
        grid_barrier.arrive();
#pragma unroll
        for (int i = 0; i < WARPS; i++) amax = fmaxf(amax, warp_amaxes[i]);
        const float scale = scale_of(amax);
        u32 words[N / 4];
        pack(words, v, scale);
        const int token = it.parity * TOKENS + p.cta;
        store_l2(g.hidden_codes + token * HIDDEN + p.thread * N, words[0], words[1]);
        if (p.thread == 0) store_l2(g.hidden_scales + token, __float_as_uint(scale));
    } else {
        grid_barrier.arrive();
    }
    grid_barrier.finish();
}
