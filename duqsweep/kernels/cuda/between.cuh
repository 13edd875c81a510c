// Stands between two denoising steps: the velocity out of the stream, the actions into it.
#pragma once
#include "entry.cuh"

// Leaves denoising step `step` - 1 and enters step `step`, where there are such; a program a token.
__device__ __forceinline__ void step_phase(const Arguments &g, int step, const Place &p) {
    float *flow = &shared<float>(AT_SCALES);            // (ACTION), over what is not in use here
    u16 *normed = &shared<u16>(AT_CODES);               // (WIDTH)
    float *partial = &shared<float>(AT_WARPS);
    const int token = p.cta;
    if (token >= TOKENS) return;
    if (step > 0) {
        const u16 *modulation = modulation_of(g, step - 1, 2 * LAYERS);
        const u32 pair = __ldcg((const u32 *)(g.stream + token * WIDTH) + p.thread);
        const u32 factor = __ldg((const u32 *)modulation + p.thread);
        const u32 shift = __ldg((const u32 *)(modulation + WIDTH) + p.thread);
        const float sum = warp_sum(low(pair) * low(pair) + high(pair) * high(pair));
        if (p.lane == 0) partial[p.warp] = sum;
        __syncthreads();
        float all = 0.f;
        for (int i = 0; i < WARPS; i++) all += partial[i];
        const float inverse = rsqrtf(all / WIDTH + EPS);
        ((u32 *)normed)[p.thread] = narrow(
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
                const float velocity = rounded(dot + wide(__ldg(g.out_bias + a)));
                const float now = __ldcg(from + token * ACTION + a) - velocity * (1.f / g.steps);
                g.actions[token * ACTION + a] = now;
                flow[a] = rounded(now);
            }
        }
    } else if (p.thread < ACTION) {
        flow[p.thread] = rounded(__ldcg(g.noise + token * ACTION + p.thread));
    }
    if (step == g.steps) return;
    __syncthreads();
    for (int output = p.thread; output < WIDTH; output += THREADS) {
        float dot = wide(__ldg(g.in_bias + output));
        for (int a = 0; a < ACTION; a++) dot += flow[a] * wide(__ldg(g.in_weight + output * ACTION + a));
        g.stream[token * WIDTH + output] = narrow(dot);
    }
}
