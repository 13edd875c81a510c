// GELU of the gate times up, its channels as `down` wants them; and for many tokens its codes.
#pragma once
#include "entry.cuh"

__device__ __forceinline__ float gelu(float x) {
    return __fdividef(x, 1.f + __expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
}

__device__ __forceinline__ void gate_up_phase(const Arguments &g, Meeting &meeting, const Turn &turn, const Place &p) {
    const int layer = turn.layer;
    NormInputs in;
    load_norm(in, modulation_of(g, turn.step, 2 * layer + 1), g.orders + (layer * 4 + 1) * WIDTH, p);
    if (p.thread >= SCALER && p.thread < SCALER + GATE_UP_TILES * 8)
        shared<float>(AT_WEIGHT_SCALES + 4 * (p.thread - SCALER)) =
            __ldg(g.gate_up_scales + (layer * CTAS + p.cta) * GATE_UP_TILES * 8 + p.thread - SCALER);
    if (p.thread == EXPECTER) expect_codes();
    if (p.thread == COPIER) {
        prefetch(g.gate_up + ((u64)turn.next * CTAS + p.cta) * GATE_UP_BYTES, GATE_UP_BYTES);
        prefetch(g.down + ((u64)turn.next * CTAS + p.cta) * DOWN_BYTES, DOWN_BYTES);
        prefetch(g.gate_up_scales + (turn.next * CTAS + p.cta) * GATE_UP_TILES * 8, GATE_UP_TILES * 32);
    }
    meeting.wait();
    norm(g, in, 1, p);
    await(GATE_UP_IN, turn.parity);
    entry_product<GATE_UP_TILES>(AT_GATE_UP, p, [&](int tile, int token, int pair, float first, float second) {
        const int channel = (p.cta * GATE_UP_TILES + tile) * 4 + pair;
        if (channel >= HIDDEN) return;
        const float2 both = scaled(tile, token, pair, first, second);
        g.hidden[token * HIDDEN + channel] = narrow(gelu(both.x) * both.y);
    });
    count(GATE_UP_DONE, p);
    meeting.arrive();
}

// Codes of what gate and up gave, for many tokens: a program a token.
__device__ __forceinline__ void hidden_phase(const Arguments &g, Meeting &meeting, const Place &p) {
    constexpr int N = HIDDEN / THREADS;
    meeting.wait();
    if (p.cta < TOKENS) {
        u32 raw[N / 2];
        load_fresh(raw, g.hidden + p.cta * HIDDEN + p.thread * N);
        float v[N];
#pragma unroll
        for (int i = 0; i < N / 2; i++) v[2 * i] = low(raw[i]), v[2 * i + 1] = high(raw[i]);
        rotate(v, p.lane);
        float peak = peak_of(v);
        float *peaks = &shared<float>(AT_WARPS);
        if (p.lane == 0) peaks[p.warp] = peak;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < WARPS; i++) peak = fmaxf(peak, peaks[i]);
        const float scale = scale_of(peak);
        u32 words[N / 4];
        pack(words, v, scale);
        *(uint2 *)(g.hidden_codes + p.cta * HIDDEN + p.thread * N) = {words[0], words[1]};
        if (p.thread == 0) g.hidden_scales[p.cta] = scale;
    }
    meeting.arrive();
}
