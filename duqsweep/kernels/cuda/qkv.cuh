// Queries, keys and values.
#pragma once
#include "entry.cuh"

__device__ __forceinline__ void qkv_phase(const Arguments &g, Meeting &meeting, const Turn &turn, const Place &p) {
    const int layer = turn.layer;
    const u16 *modulation = modulation_of(g, turn.step, 2 * layer);
    NormInputs in;
    load_norm(in, modulation, g.orders + layer * 4 * WIDTH, p);
    if (p.thread >= SCALER && p.thread < SCALER + QKV_SLOTS * 8)
        shared<float>(AT_WEIGHT_SCALES + 4 * (p.thread - SCALER)) =
            __ldg(g.qkv_scales + (layer * CTAS + p.cta) * QKV_SLOTS * 8 + p.thread - SCALER);
    if (p.thread == EXPECTER) expect_codes();
    if (p.thread == COPIER) {
        const bool end = turn.next == 0 && turn.step + 1 == g.steps;
        prefetch(g.qkv + ((u64)turn.next * CTAS + p.cta) * QKV_BYTES, QKV_BYTES);
        prefetch(g.qkv_scales + (turn.next * CTAS + p.cta) * QKV_SLOTS * 8, QKV_SLOTS * 32);
        if (p.cta == 0) prefetch(modulation + 6 * WIDTH, (end ? 6 : 12) * WIDTH);   // of the next norms
        if (p.cta == 1) prefetch(g.orders + turn.next * 4 * WIDTH, 8 * WIDTH);
    }
    meeting.wait();
    norm(g, in, 0, p);
    await(WEIGHT_IN, turn.parity);
    entry_product<QKV_SLOTS>(AT_WEIGHT, p, [&](int slot, int token, int pair, float first, float second) {
        const int tile = p.cta + CTAS * slot, head = tile / 32, d = tile % 32 * 4 + pair;
        if (tile >= QKV_TILES) return;
        float2 both = scaled(slot, token, pair, first, second);
        if (head <= HEADS) {
            const int angle = token * (DIM / 2) + d;
            const float cosine = __ldg(g.cosines + angle), sine = __ldg(g.sines + angle);
            both = {both.x * cosine - both.y * sine, both.y * cosine + both.x * sine};
        }
        u16 *own = head == HEADS ? g.keys : g.values;
        u16 *to = head < HEADS ? g.queries + token * MIXED + head * DIM : own + token * DIM;
        to[d] = narrow(both.x), to[d + DIM / 2] = narrow(both.y);
    });
    count(QKV_DONE, p);
    meeting.arrive();
}
