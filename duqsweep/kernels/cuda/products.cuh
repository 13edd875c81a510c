// Matrix products on tensor cores.
#pragma once
#include "memory.cuh"

DEVICE void load_matrices(u32 (&a)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(address) : "memory");
}
DEVICE void load_two_matrices(u32 &b0, u32 &b1, u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(b0), "=r"(b1) : "r"(address) : "memory");
}
DEVICE void load_matrices_transposed(u32 (&a)[4], u32 address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3]) : "r"(address) : "memory");
}
DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// Of codes. Hopper's tensor cores multiply e4m3 only by warp groups, so that the compiler converts them to float16 here.
DEVICE void mma_codes(Sum (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
#if E4M3
    asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
DEVICE u32 word_of(const uint4 &chunk, int i) {
    return i == 0 ? chunk.x : i == 1 ? chunk.y : i == 2 ? chunk.z : chunk.w;
}

// 16 tokens times `tiles` (MIN_TILES to TILES) tiles of outputs, over STEPS steps of 32 channels. int4 weights are
// multiplied as 16 times their value. rows, weight: shared-memory offsets of tokens and fragments; stride: bytes
// between tiles.
template <int MIN_TILES, int TILES, int STEPS>
DEVICE void product(
    Sum (&sums)[TILES][4], int rows, int pitch, int weight, int stride, int tiles, int lane) {
    constexpr int CHAINS = TILES == 1 ? 2 : 1;   // independent accumulators, to hide the latency of mma
    constexpr int UNROLLED = E4M3 ? 2 : STEPS / CHUNK_STEPS;   // conversions need registers; more of them would be spilled
    Sum parts[CHAINS][TILES][4] = {};
    const u32 row = smem_addr(rows) + (lane & 15) * pitch + (lane >> 4) * 16;
#pragma unroll(UNROLLED)
    for (int chunk = 0; chunk < STEPS / CHUNK_STEPS; chunk++) {
        uint4 fragments[TILES];
#pragma unroll
        for (int t = 0; t < TILES; t++)
            if (t < MIN_TILES || t < tiles)
                fragments[t] = shared<uint4>(weight + t * stride + chunk * CHUNK + lane * 16);
#pragma unroll
        for (int i = 0; i < CHUNK_STEPS; i++) {
            u32 a[4];
            load_matrices(a, row + (chunk * CHUNK_STEPS + i) * 32);
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                if (t >= MIN_TILES && t >= tiles) continue;
                if constexpr (FORMAT == 4) {
                    const u32 word = word_of(fragments[t], i);
                    mma_codes(parts[i % CHAINS][t], a, word << 4 & 0xf0f0f0f0u, word & 0xf0f0f0f0u);
                } else {
                    mma_codes(
                        parts[i % CHAINS][t], a, word_of(fragments[t], 2 * i), word_of(fragments[t], 2 * i + 1));
                }
            }
        }
    }
#pragma unroll
    for (int t = 0; t < TILES; t++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[t][i] = CHAINS == 2 ? parts[0][t][i] + parts[CHAINS - 1][t][i] : parts[0][t][i];
}
