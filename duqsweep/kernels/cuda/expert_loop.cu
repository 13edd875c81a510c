// The whole denoising loop of pi0.5's action expert in one persistent kernel, for one observation.
//
// CTAs of 512 threads stay on the GPU for the whole loop, in 14 to 16 clusters of 8. They synchronise at a grid barrier
// five times per layer, six times for more than 16 tokens, and arrive there before their results of the phase are written:
// readers see whether a value is there (`exchange.cuh`). Weights and the prefix's keys are copied to shared memory several
// phases ahead, so that the time is that of the chain of dependent operations and not of the memory traffic.
// CTAs of a cluster write results directly into each other's shared memory. The phases of a layer:
//
//   qkv        norm and quantization of the residual stream; queries, keys, values with rotary positions
//   attention  attention; its result is quantized
//   o          product, added to the residual stream
//   gate_up    norm and quantization of the residual stream; GELU of the gate times up
//   down       quantization; product, added to the residual stream
//
// On the tensor cores, tokens are the rows of a product (m16), outputs its columns (n8), and a step is 32 input
// channels (k32). Weights are stored in the operand order of the instruction (`expert/fragments.py`), 16 bytes per lane
// and load.
//
// The compiler command defines TOKENS (1 to 64), FORMAT (4 or 8: bits of a stored weight), E4M3 (1: codes are 8-bit
// floats, 0: integers), BLOCK (channels per rotation block; 1: no rotation), QMAX (largest quantized activation), LAYERS,
// ACTION (channels of an action), CLUSTERS (active at the same time), PARTS (1 or 2: parts of the tokens that the ranks
// of a cluster divide after a norm) and CHUNKED (1: a rank may have more keys than fit into its shared memory; 0: not).
#include "attention.cuh"
#include "euler_step.cuh"
#include "linear_residual.cuh"
#include "gate_up.cuh"
#include "qkv.cuh"

// Read by the launcher: bytes of shared memory per CTA, and the number of keys that fit into a rank.
extern "C" __constant__ int shared_bytes = SMEM_BYTES, max_keys = MAX_KEYS;

extern "C" __global__ void __cluster_dims__(8, 1, 1) __launch_bounds__(512, 1)
expert_loop(const __grid_constant__ Arguments g) {
    const ThreadPosition p = position(g);
    GridBarrier grid_barrier = {g.arrivals, 0};
    init_mbarriers();   // from here on, other CTAs write into this one's shared memory
    bulk_load_keys(g, first_keys(p), 0, p);
    load_rotary(g, p);
    if (p.cluster >= CLUSTERS - RESETTING) reset_buffers(g, 0, 0, p);
    euler_step_phase(g, 0, p);
    wait_for_writes();
    grid_barrier.arrive_together();
    for (int step = 0; step < g.steps; step++) {
#pragma unroll 1
        for (int layer = 0; layer < LAYERS; layer++) {
            const bool last = step + 1 == g.steps && layer + 1 == LAYERS;
            const Iteration it = {step, layer, (layer + 1) % LAYERS, (step * LAYERS + layer) & 1, last};
            const u16 *modulation = modulation_of(g, step, 2 * layer);
            bulk_load_weight(AT_WEIGHT, g.qkv, QKV_BYTES, WEIGHT_IN, layer * SETS + p.set, p);
            qkv_phase(g, grid_barrier, it, position(g));
            bulk_load_weight(AT_WEIGHT, g.o, O_BYTES, WEIGHT_IN, layer * CTAS + p.cta, p);
            attention_phase(g, grid_barrier, it, position(g));
            bulk_load_weight(AT_GATE_UP, g.gate_up, GATE_UP_BYTES, GATE_UP_IN, layer * SETS + p.set, p);
            linear_residual_phase<O_SLICE>(g, grid_barrier, g.o_scales, modulation + 2 * WIDTH, it, position(g));
            bulk_load_weight(AT_WEIGHT, g.down, DOWN_BYTES, WEIGHT_IN, layer * CTAS + p.cta, p);
            gate_up_phase(g, grid_barrier, it, position(g));
            if (TILES_M > 1) quantize_hidden_phase(g, grid_barrier, it, position(g));
            if (!last) bulk_load_keys(g, first_keys(p), it.next, p);
            linear_residual_phase<DOWN_SLICE>(g, grid_barrier, g.down_scales, modulation + 5 * WIDTH, it, position(g));
        }
        grid_barrier.wait();
        euler_step_phase(g, step + 1, p);
        wait_for_writes();
        if (step + 1 < g.steps) grid_barrier.arrive_together();
    }
    report_counts(g, p);
}
