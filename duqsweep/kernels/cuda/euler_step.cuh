// Euler step: residual stream -> velocity -> updated actions -> residual stream of the next step.
#pragma once
#include "norm_linear.cuh"

// Finishes denoising step `step` - 1, unless `step` is 0, and starts step `step`, unless it is g.steps; one CTA per
// token.
DEVICE void euler_step_phase(const Arguments &g, int step, const ThreadPosition &p) {
    float *noisy = &shared<float>(AT_SCALES);           // (ACTION), in memory that is free at this point
    u16 *normed = &shared<u16>(AT_CODES);               // (WIDTH)
    float *partial = &shared<float>(AT_WARP_PARTIALS);
    const int token = p.cta;
    u16 *const stream = stream_of(g, (step * LAYERS + 1) & 1);   // of the last iteration
    if (token >= TOKENS) return;
    if (step > 0) {
        const u16 *modulation = modulation_of(g, step - 1, 2 * LAYERS);
        u32 loaded[1];
        load_written(loaded, stream + token * WIDTH + 2 * p.thread);
        const u32 pair = loaded[0];
        const u32 factor = __ldg((const u32 *)modulation + p.thread);
        const u32 shift = __ldg((const u32 *)(modulation + WIDTH) + p.thread);
        const float sum = warp_sum(low(pair) * low(pair) + high(pair) * high(pair));
        if (p.lane == 0) partial[p.warp] = sum;
        __syncthreads();
        float all = 0.f;
        for (int i = 0; i < WARPS; i++) all += partial[i];
        const float inverse = rsqrtf(all / WIDTH + EPS);
        ((u32 *)normed)[p.thread] = to_bf16(
            low(pair) * inverse * low(factor) + low(shift), high(pair) * inverse * high(factor) + high(shift));
        __syncthreads();
        for (int a = p.warp; a < ACTION; a += WARPS) {
            float dot = 0.f;
            for (int i = p.lane; i < WIDTH / 2; i += 32) {
                const u32 x = ((u32 *)normed)[i], w = __ldg((const u32 *)(g.out_weight + a * WIDTH) + i);
                dot += low(x) * low(w) + high(x) * high(w);
            }
            dot = warp_sum(dot);
            if (p.lane == 0) {
                const float *from = step > 1 ? g.actions : g.noise;
                const float velocity = round_bf16(dot + to_float(__ldg(g.out_bias + a)));
                const float now = __ldcg(from + token * ACTION + a) - velocity * __ldg(g.step_sizes + step - 1);
                g.actions[token * ACTION + a] = now;
                noisy[a] = round_bf16(now);
            }
        }
    } else if (p.thread < ACTION) {
        noisy[p.thread] = round_bf16(__ldcg(g.noise + token * ACTION + p.thread));
    }
    if (step == g.steps) return;
    __syncthreads();
    for (int output = p.thread; output < WIDTH; output += THREADS) {
        float dot = to_float(__ldg(g.in_bias + output));
        for (int a = 0; a < ACTION; a++) dot += noisy[a] * to_float(__ldg(g.in_weight + output * ACTION + a));
        store_l2(stream + token * WIDTH + output, to_bf16(dot));
    }
}
