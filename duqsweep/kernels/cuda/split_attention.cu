// Softmax attention without a mask over merged rows of queries, keys and values in bfloat16, on warp groups: results for
// parts of the keys.
//
// A CTA computes ROWS (token, query head) pairs that share a key head, for one part of the keys: the rows of GROUP heads,
// TOKENS tokens each. One thread copies queries, and tile after tile of keys and values, to shared memory by TMA. Each warp
// group multiplies 64 rows: scores = queries x keysᵀ, both from shared memory, and out = weights x values, whose weights
// stay in registers.
//
// The compiler command defines GROUP (query heads per key head), KV_HEADS and PARTS (at least 2). `split_attention.py`
// writes wgmma.cuh.
#include "hopper.cuh"
#include "wgmma.cuh"

constexpr int HEAD_DIM = 256, KEYS = 96, WARP_GROUPS = 2;
constexpr int ROWS = 64 * WARP_GROUPS, TOKENS = ROWS / GROUP, CONSUMERS = 128 * WARP_GROUPS, WARPS = 4 * WARP_GROUPS;
constexpr int THREADS = CONSUMERS + 128;   // the last warp group copies
constexpr int HEADS = KV_HEADS * GROUP;
constexpr int BLOCK = 64, BLOCKS = HEAD_DIM / BLOCK;   // channels of a row of 128 bytes
constexpr int STEPS = HEAD_DIM / 16, OUT = HEAD_DIM / 2, SCORES = KEYS / 2;   // registers of a lane
constexpr int QUERY_BYTES = BLOCKS * ROWS * 128, TILE_BYTES = BLOCKS * KEYS * 128;   // of keys, or of values
constexpr int SMEM_BYTES = 1024 + QUERY_BYTES + 2 * TILE_BYTES;   // the first 1,024 for alignment
constexpr float NO_KEY = -1e30f;
static_assert(PARTS > 1 && TOKENS * GROUP == ROWS && TOKENS % 8 == 0, "TMA's swizzle repeats after eight rows");

using Map = struct { u64 words[16]; };   // CUtensorMap

struct alignas(64) Arguments {
    alignas(64) Map queries, keys;   // boxes of TOKENS and of KEYS rows, 128 bytes of each
    float *out;       // (PARTS, tokens of all sequences, HEADS, HEAD_DIM)
    float *logs;      // (PARTS, tokens of all sequences, HEADS): log2 of the sum of exponentials
    float factor;     // of a score, with log2(e)
    int tokens, sequences, tiles;   // tokens of a sequence; tiles of keys per part
};

extern "C" __constant__ int shared_bytes = SMEM_BYTES;
extern __shared__ unsigned char smem[];

DEVICE float exp2_of(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float log2_of(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// Describes values: 64 channels are a row of 128 bytes, further channels follow after all keys of the tile.
DEVICE u64 wgmma_columns(u32 address) {
    return (u64)(address >> 4) | (u64)(KEYS * 128 >> 4) << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1) split_attention(const __grid_constant__ Arguments g) {
    __shared__ __align__(8) u64 barriers[5];
    const u32 queries_full = (u32)__cvta_generic_to_shared(barriers);
    const u32 keys_full = queries_full + 8, values_full = keys_full + 8;
    const u32 keys_empty = values_full + 8, values_empty = keys_empty + 8;
    const u32 queries = ((u32)__cvta_generic_to_shared(smem) + 1023) / 1024 * 1024;
    const u32 keys = queries + QUERY_BYTES, values = keys + TILE_BYTES;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        mbarrier_init(queries_full, 1), mbarrier_init(keys_full, 1), mbarrier_init(values_full, 1);
        mbarrier_init(keys_empty, WARPS), mbarrier_init(values_empty, WARPS);
        fence_mbarrier_init();
    }
    __syncthreads();
    launch_dependents();

    const int part = blockIdx.y % PARTS, kv_head = blockIdx.y / PARTS % KV_HEADS;
    const int sequence = blockIdx.y / (PARTS * KV_HEADS), start = sequence * g.tokens;   // its first row
    const int first_token = blockIdx.x * TOKENS, first_key = part * g.tiles * KEYS;
    const int tiles = min(g.tiles, (g.tokens - first_key + KEYS - 1) / KEYS);

    if (warp >= WARPS) {
        give_registers<24>();
        if (threadIdx.x == CONSUMERS) {
            prefetch_map(&g.queries), prefetch_map(&g.keys);
            wait_for_previous_kernel();
            mbarrier_expect(queries_full, QUERY_BYTES);
            for (int block = 0; block < BLOCKS; block++)
                for (int head = 0; head < GROUP; head++)
                    load_box(queries + (block * ROWS + head * TOKENS) * 128, &g.queries,
                             2 * ((kv_head * GROUP + head) * HEAD_DIM + block * BLOCK), start + first_token, queries_full);
            for (int tile = 0; tile < tiles; tile++) {
                const int row = start + first_key + tile * KEYS;
                for (int which = 0; which < 2; which++) {
                    mbarrier_wait(which ? values_empty : keys_empty, tile & 1 ^ 1);
                    const u32 full = which ? values_full : keys_full, to = which ? values : keys;
                    mbarrier_expect(full, TILE_BYTES);
                    for (int block = 0; block < BLOCKS; block++)
                        load_box(to + block * KEYS * 128, &g.keys,
                                 2 * ((HEADS + which * KV_HEADS + kv_head) * HEAD_DIM + block * BLOCK), row, full);
                }
            }
        }
        return;
    }
    take_registers<240>();

    const int group = warp / 4, quad = lane / 4, pair = lane % 4;
    mbarrier_wait(queries_full, 0);
    float out[OUT], maximum[2] = {NO_KEY, NO_KEY}, sum[2] = {};
#pragma unroll
    for (int i = 0; i < OUT; i++) out[i] = 0.f;
    for (int tile = 0; tile < tiles; tile++) {
        float scores[SCORES];
        mbarrier_wait(keys_full, tile & 1);
        hold(scores);
        wgmma_begin();
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            const u32 inside = step % 4 * 32, block = step / 4;
            wgmma_scores(scores, wgmma_rows(queries + (block * ROWS + group * 64) * 128 + inside),
                         wgmma_rows(keys + block * KEYS * 128 + inside), step > 0);
        }
        wgmma_commit();
        wgmma_wait<0>();
        hold(scores);
        if (lane == 0) mbarrier_arrive(keys_empty, 0);

        const int left = g.tokens - first_key - tile * KEYS;   // keys from here to the end
#pragma unroll
        for (int i = 0; i < SCORES; i++) {
            scores[i] *= g.factor;
            if (left < KEYS && i / 4 * 8 + pair * 2 + i % 2 >= left) scores[i] = NO_KEY;
        }
        float rescale[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = maximum[half];
#pragma unroll
            for (int i = 0; i < SCORES; i += 4)
                top = fmaxf(top, fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
            top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
            rescale[half] = exp2_of(maximum[half] - top);
            maximum[half] = top;
            float added = 0.f;
#pragma unroll
            for (int i = 0; i < SCORES; i += 4)
#pragma unroll
                for (int one = 0; one < 2; one++) {
                    float &score = scores[i + 2 * half + one];
                    score = exp2_of(score - top);
                    added += score;
                }
            sum[half] = sum[half] * rescale[half] + added;
        }
#pragma unroll
        for (int i = 0; i < OUT; i++) out[i] *= rescale[i / 2 % 2];
        u32 weights[KEYS / 16][4];
#pragma unroll
        for (int step = 0; step < KEYS / 16; step++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                weights[step][i] = to_bf16(scores[step * 8 + i * 2], scores[step * 8 + i * 2 + 1]);
        mbarrier_wait(values_full, tile & 1);
        hold(out);
        wgmma_begin();
#pragma unroll
        for (int step = 0; step < KEYS / 16; step++)
            wgmma_out(out, weights[step], wgmma_columns(values + step * 16 * 128));
        wgmma_commit();
        wgmma_wait<0>();
        hold(out);
        if (lane == 0) mbarrier_arrive(values_empty, 0);
    }

#pragma unroll
    for (int half = 0; half < 2; half++) {
        float total = sum[half];
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        const float inverse = total > 0.f ? 1.f / total : 0.f;   // without a key, nothing
        const int row = group * 64 + warp % 4 * 16 + half * 8 + quad;
        const int token = first_token + row % TOKENS, head = kv_head * GROUP + row / TOKENS;
        if (token >= g.tokens) continue;
        const u64 place = ((u64)part * g.sequences * g.tokens + start + token) * HEADS + head;
#pragma unroll
        for (int i = 0; i < OUT; i += 4) {
            const float a = out[i + 2 * half] * inverse, b = out[i + 2 * half + 1] * inverse;
            const u64 at = place * HEAD_DIM + i * 2 + pair * 2;
            *(float2 *)(g.out + at) = float2{a, b};
        }
        if (pair == 0) g.logs[place] = total > 0.f ? maximum[half] + log2_of(total) : NO_KEY;
    }
}
