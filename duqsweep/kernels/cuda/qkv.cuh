// Queries, keys and values, with rotary positions.
#pragma once
#include "norm_linear.cuh"

// The angles of this CTA's outputs, where a pair's first output has index d within its head: they stay the same.
DEVICE void load_rotary(const Arguments &g, const ThreadPosition &p) {
    for (int i = p.thread; i < PART_TOKENS * QKV_CTA_TILES * 4; i += THREADS) {
        const int token = p.first_token + i / (QKV_CTA_TILES * 4), tile = p.set + SETS * (i / 4 % QKV_CTA_TILES);
        const int angle = token * (DIM / 2) + tile % 32 * 4 + i % 4;
        const bool value = tile / 32 > HEADS;   // values are not rotated
        shared<float2>(AT_ROTARY + i * 8) = {
            value ? 1.f : __ldg(g.cosines + angle), value ? 0.f : __ldg(g.sines + angle)};
    }
}

DEVICE void qkv_phase(const Arguments &g, GridBarrier &grid_barrier, const Iteration &it, const ThreadPosition &p) {
    const int layer = it.layer;
    const u16 *modulation = modulation_of(g, it.step, 2 * layer);
    NormInputs in;
    load_norm(in, modulation, g.permutations + layer * 4 * WIDTH, p);
    if (p.thread >= SCALE_THREAD && p.thread < SCALE_THREAD + QKV_CTA_TILES * 8)
        shared<float>(AT_WEIGHT_SCALES + 4 * (p.thread - SCALE_THREAD)) =
            __ldg(g.qkv_scales + (layer * SETS + p.set) * QKV_CTA_TILES * 8 + p.thread - SCALE_THREAD);
    if (p.thread == EXPECT_THREAD) expect_codes(p);
    if (p.thread == COPY_THREAD) {
        const bool end = it.next == 0 && it.step + 1 == g.steps;
        prefetch_l2(g.qkv + ((u64)it.next * SETS + p.set) * QKV_BYTES, QKV_BYTES);
        prefetch_l2(g.qkv_scales + (it.next * SETS + p.set) * QKV_CTA_TILES * 8, QKV_CTA_TILES * 32);
        if (p.cta == 0) prefetch_l2(modulation + 6 * WIDTH, (end ? 6 : 12) * WIDTH);   // modulations of the next norms
        if (p.cta == 1) prefetch_l2(g.permutations + it.next * 4 * WIDTH, 8 * WIDTH);
    }
    grid_barrier.wait();
    norm(stream_of(g, it.parity ^ 1), in, 0, p);
    wait_bytes(WEIGHT_IN, it.parity);
    const auto finish = [&](int slot, int row, int pair, float first, float second) {
        const int tile = p.set + SETS * slot, token = p.first_token + row, head = tile / 32, d = tile % 32 * 4 + pair;
        if (tile >= QKV_TILES) return;
        const float2 both = scaled(slot, row, pair, first, second);
        const float2 turn = shared<float2>(AT_ROTARY + ((row * QKV_CTA_TILES + slot) * 4 + pair) * 8);
        u16 *to = head < HEADS ? g.queries : head == HEADS ? g.keys : g.values;
        const int width = head < HEADS ? ATTN_WIDTH : DIM, at = token * width + (head < HEADS ? head * DIM : 0) + d;
        to += it.parity * TOKENS * width + at;
        store_l2(to, to_bf16(both.x * turn.x - both.y * turn.y));
        store_l2(to + DIM / 2, to_bf16(both.y * turn.x + both.x * turn.y));
    };
    norm_product<QKV_CTA_TILES, QKV_EARLY>(AT_WEIGHT, grid_barrier, p, finish);
    count_product(QKV_DONE, p);
    if (QKV_EARLY) grid_barrier.finish();
    else grid_barrier.arrive_together();
}
