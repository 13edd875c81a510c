// The whole denoising loop of pi0.5's action expert in one kernel, for one observation.
//
// Programs of 512 threads stay on the GPU, in 14 to 16 clusters of 8, and meet at a barrier five times a
// layer, six for more than 16 tokens. Weights and the prefix's keys are copied into shared memory phases ahead, so that the chain of
// dependent steps is all that takes time, not the bytes. Programs of a cluster hand results straight into
// each other's shared memory. The phases of a layer:
//
//   qkv      norm and codes of the stream; queries, keys, values with rotary positions
//   attend   attention, and codes of its result
//   o        their product, added to the stream
//   gate_up  norm and codes of the stream; GELU of the gate times up
//   down     codes of that; product, added to the stream
//
// Tokens are the rows of a product on tensor cores (m16), outputs its columns (n8), and a step is 32
// channels. Weights lie as the instruction wants them (`fragments.py`), 16 bytes a lane and load.
//
// Whoever compiles it defines TOKENS (1 to 64), FORMAT (4 or 8: bits of stored codes), BLOCK (channels of a
// rotation; 1: none), TOP (largest code of a token), LAYERS, ACTION (channels of an action) and CLUSTERS (that
// the GPU runs at once).
#include "attend.cuh"
#include "between.cuh"
#include "exit.cuh"
#include "gate_up.cuh"
#include "qkv.cuh"

// What the launcher asks: bytes of shared memory of a program, and keys that a rank can hold.
extern "C" __constant__ int shared_bytes = SHARED, most_keys = KEYS;

extern "C" __global__ void __cluster_dims__(8, 1, 1) __launch_bounds__(512, 1)
expert_loop(const __grid_constant__ Arguments g) {
    const int thread = threadIdx.x, cta = blockIdx.x;
    const int cluster = cta / RANKS, rank = cta % RANKS, total = g.prefix + TOKENS, most = (total + RANKS - 1) / RANKS;
    const Place p = {thread, thread % 32, thread / 32, cta, cluster, rank,
                     rank * most, max(0, min(most, total - rank * most)), (most + 15) / 16 * 16};
    Meeting meeting = {g.arrivals, 0};
    begin_signals();   // from here on, others write into a program's memory
    bring_prefix(g, 0, p);
    step_phase(g, 0, p);
    meeting.arrive();
    for (int step = 0; step < g.steps; step++) {
#pragma unroll 1
        for (int layer = 0; layer < LAYERS; layer++) {
            const bool last = step + 1 == g.steps && layer + 1 == LAYERS;
            const Turn turn = {step, layer, (layer + 1) % LAYERS, (step * LAYERS + layer) & 1, last};
            const u16 *modulation = modulation_of(g, step, 2 * layer);
            bring_weight(AT_WEIGHT, g.qkv, QKV_BYTES, WEIGHT_IN, layer, p);
            qkv_phase(g, meeting, turn, p);
            bring_weight(AT_WEIGHT, g.o, O_BYTES, WEIGHT_IN, layer, p);
            attend_phase(g, meeting, turn, p);
            bring_weight(AT_GATE_UP, g.gate_up, GATE_UP_BYTES, GATE_UP_IN, layer, p);
            exit_phase<O_SLICE>(g, meeting, g.o_scales, modulation + 2 * WIDTH, turn, p);
            bring_weight(AT_WEIGHT, g.down, DOWN_BYTES, WEIGHT_IN, layer, p);
            gate_up_phase(g, meeting, turn, p);
            if (TILES_M > 1) hidden_phase(g, meeting, p);
            if (!last) bring_prefix(g, turn.next, p);
            exit_phase<DOWN_SLICE>(g, meeting, g.down_scales, modulation + 5 * WIDTH, turn, p);
        }
        meeting.wait();
        step_phase(g, step + 1, p);
        if (step + 1 < g.steps) meeting.arrive();
    }
    report_counts(g, p);
}
