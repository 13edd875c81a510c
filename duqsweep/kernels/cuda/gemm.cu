// out = epilogue(tokens x weightᵀ): products of int8 or FP8 (e4m3) codes for many tokens, on wgmma.
//
// A CTA computes tiles of 128 OUTPUT_GROUPS outputs x TILE_TOKENS tokens. One thread copies tiles of both operands to
// shared memory by TMA, STAGES steps of 128 input channels ahead; a warp group multiplies 128 outputs and one of
// TOKEN_GROUPS parts of the tokens. Outputs are the rows of wgmma (m64, two slabs per group), tokens its columns, so that
// a number of tokens that is no multiple of 64 wastes little. CTAs stay and take one tile after another.
//
// The weight is constant: as many steps of it as fit are copied before the kernel that writes the codes has ended. For
// that, and so that CTAs of that kernel fit, too, small products have tiles that fill neither registers nor shared memory.
//
//   SPLIT > 1       SPLIT CTAs divide the input channels of one tile, and store their sums; the kernel gemm_finish adds
//                   them up, always in the same order, or the kernel that quantizes the result. For products with few
//                   tiles.
//   PACKED          The weight is int4. Threads load its codes from shared memory into the registers that wgmma reads,
//                   where they are in the high halves of bytes: 16 times as large. The scales are divided by 16.
//
// The rows of the weight are in the order of `gemm.row_order`: after the tokens and outputs of a result are transposed
// in registers, a lane holds neighbouring outputs of one token.
//
// The compiler command defines FP8 (0 or 1), PACKED (0 or 1), TILE_TOKENS, OUTPUT_GROUPS, TOKEN_GROUPS, CTAS (per
// multiprocessor), STAGES, SPLIT, EPILOGUE (0: nothing, 1: GELU, 2: gated, 3: rotary), BIASED, RESIDUAL, HEAD_DIM and
// ROTARY_HEADS. `gemm.wgmma_header` writes wgmma.cuh for the tokens of a group, a multiple of 16.
#include "hopper.cuh"
#include "wgmma.cuh"

constexpr int OUTPUTS = 128 * OUTPUT_GROUPS, CHANNELS = 128, GROUP_TOKENS = TILE_TOKENS / TOKEN_GROUPS;
constexpr int COLUMNS = GROUP_TOKENS / 8;   // of eight tokens
constexpr int GROUPS = OUTPUT_GROUPS * TOKEN_GROUPS, WARPS = 4 * GROUPS;   // that multiply
constexpr bool WIDE = GROUP_TOKENS > 128;   // sums need registers that three warps without work give up
constexpr int THREADS = 32 * (WARPS + (WIDE ? 4 : 1));
constexpr int RESIDENT = CTAS == 1 && GROUPS == 1 && GROUP_TOKENS <= 96 ? 2 : CTAS;   // as if two: leaves registers
constexpr int WEIGHT_BYTES = OUTPUTS * CHANNELS / (PACKED ? 2 : 1), TOKEN_BYTES = TILE_TOKENS * CHANNELS;
constexpr int STAGE_BYTES = WEIGHT_BYTES + TOKEN_BYTES;
constexpr int SMEM_BYTES = 1024 + STAGES * STAGE_BYTES;   // the first 1,024 for alignment
constexpr int GROUP_BYTES = 128 * CHANNELS / 2;   // a packed weight's step for a warp group
constexpr int SLAB_BYTES = 64 * 64 / 2, BLOCK_BYTES = 2 * SLAB_BYTES;   // of `gemm.fragments`: 64 channels each
enum { NOTHING, GELU, GATED, ROTARY };
constexpr bool PAIRS = EPILOGUE >= GATED;   // outputs 2i and 2i + 1 belong together
static_assert(!FP8 || !PACKED, "packed codes are multiplied as int8");
static_assert(OUTPUT_GROUPS <= 2 && TILE_TOKENS <= 32 * WARPS, "a warp group has outputs, a thread at most one token");
// The residual, or the angles of up to 48 tokens, are loaded before the products, whose time hides their latency.
constexpr bool EARLY_RESIDUAL = RESIDUAL && EPILOGUE < GATED && SPLIT == 1 && !WIDE;
constexpr bool EARLY_ANGLES = EPILOGUE == ROTARY && SPLIT == 1 && CTAS == 1 && COLUMNS <= 6;

#if FP8
using Sum = float;
#else
using Sum = int;
#endif
using Map = struct { u64 words[16]; };   // CUtensorMap

struct alignas(64) Arguments {
    alignas(64) Map weight, codes;   // (outputs, channels), not of a packed one; (tokens, channels)
    const unsigned char *packed;     // or the codes of the weight in the order of `gemm.fragments`
    const float *weight_scales, *token_scales;   // (outputs), (tokens)
    const u16 *bias, *residual;      // (outputs), (tokens, out)
    const float *cosines, *sines;    // (tokens, HEAD_DIM / 2)
    u16 *out;                        // (tokens, out); bfloat16, as bias and residual
    Sum *parts;                      // (SPLIT, tokens, outputs): sums of the parts of a split product
    int tokens, outputs, channels;
};

// Waits for the threads that multiply.
DEVICE void sync_consumers() { asm volatile("bar.sync 1, %0;" ::"n"(32 * WARPS) : "memory"); }

// Eight codes of int4 per register: 16 times those in the high halves of its bytes, and 16 times those in the low ones.
DEVICE void unpack(u32 (&rows)[4], u32 first, u32 second) {
    rows[0] = first & 0xf0f0f0f0u, rows[1] = first << 4 & 0xf0f0f0f0u;
    rows[2] = second & 0xf0f0f0f0u, rows[3] = second << 4 & 0xf0f0f0f0u;
}

extern "C" __constant__ int shared_bytes = SMEM_BYTES;

extern __shared__ unsigned char smem[];

DEVICE float gelu(float x) {
    float tanh, inner = 0.7978845608f * (x + 0.044715f * x * x * x);
    asm("tanh.approx.f32 %0, %1;" : "=f"(tanh) : "f"(inner));
    return 0.5f * x * (1.f + tanh);
}
DEVICE u32 add(u32 pair, u32 other) { return to_bf16(low(pair) + low(other), high(pair) + high(other)); }
DEVICE uint2 add(uint2 a, uint2 b) { return {add(a.x, b.x), add(a.y, b.y)}; }
DEVICE uint4 add(uint4 a, uint4 b) { return {add(a.x, b.x), add(a.y, b.y), add(a.z, b.z), add(a.w, b.w)}; }

// GELU of the gate, times up.
DEVICE float gated(float gate, float up) {
    float tanh, inner = gate * fmaf(0.7978845608f * 0.044715f, gate * gate, 0.7978845608f);
    asm("tanh.approx.f32 %0, %1;" : "=f"(tanh) : "f"(inner));
    const float half = gate * (0.5f * up);
    return fmaf(half, tanh, half);
}

// What a CTA computes: tiles from `first` on, `step` apart, and steps of the input channels.
struct Work {
    int token_tiles, tiles, first, apart, part, steps, first_step, last_step;
    DEVICE explicit Work(const Arguments &g) {
        token_tiles = (g.tokens + TILE_TOKENS - 1) / TILE_TOKENS;
        tiles = token_tiles * ((g.outputs + OUTPUTS - 1) / OUTPUTS);
        first = blockIdx.x / SPLIT, apart = gridDim.x / SPLIT, part = blockIdx.x % SPLIT;
        steps = (g.channels + CHANNELS - 1) / CHANNELS;
        first_step = steps * part / SPLIT, last_step = steps * (part + 1) / SPLIT;
    }
    DEVICE int row(int tile) const { return tile / token_tiles * OUTPUTS; }
    DEVICE int token(int tile) const { return tile % token_tiles * TILE_TOKENS; }
};

// Where a thread's results belong: warp group, warp in it, lane; the tile's first output row and first token.
struct Place {
    int group, warp, lane, row, token;
    DEVICE int token_of(int column) const { return token + (group % TOKEN_GROUPS * COLUMNS + column) * 8 + lane / 4; }
    DEVICE int eight() const { return row + group / TOKEN_GROUPS * 128 + warp * 32 + lane % 4 * 8; }   // outputs
    DEVICE int pair() const { return row / 2 + group / TOKEN_GROUPS * 64 + warp * 16 + lane % 4 * 4; }   // the first of four
};

// Cosines and sines of a token, for a lane's four pairs.
struct Angles {
    float4 cosines, sines;
    DEVICE void load(const Arguments &g, const Place &p, int column) {
        constexpr int HALF = HEAD_DIM / 2;
        const int token = p.token_of(column), at = token * HALF + p.pair() % HALF;
        if (p.pair() / HALF >= ROTARY_HEADS || token >= g.tokens) return;
        cosines = load_early((const float4 *)(g.cosines + at)), sines = load_early((const float4 *)(g.sines + at));
    }
};

// Stores neighbouring outputs of a token.
template <typename Vector> DEVICE void store_at(const Arguments &g, int token, int output, int width, Vector values) {
    if (token < g.tokens && output < width) *(Vector *)(g.out + (u64)token * width + output) = values;
}
// The residual of neighbouring outputs.
template <typename Vector> DEVICE Vector residual_at(const Arguments &g, int token, int output, int width) {
    if (token >= g.tokens || output >= width) return {};
    return load_written((const Vector *)(g.residual + (u64)token * width + output));
}
// Adds the residual and stores.
template <typename Vector> DEVICE void store(const Arguments &g, int token, int output, int width, Vector values) {
    if (RESIDUAL) values = add(values, residual_at<Vector>(g, token, output, width));
    store_at(g, token, output, width, values);
}

// Scales of a lane's four output rows, and their bias.
struct RowFactors {
    float scale[2][2], bias[2][2];   // of slab (64 rows) and half (8 rows)
    DEVICE void load(const Arguments &g, const Place &p) {
#pragma unroll
        for (int slab = 0; slab < 2; slab++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = p.row + p.group / TOKEN_GROUPS * 128 + slab * 64 + p.warp * 16 + half * 8 + p.lane / 4;
                const bool inside = row < g.outputs;
                scale[slab][half] = inside ? __ldg(g.weight_scales + row) : 0.f;
                bias[slab][half] = BIASED && inside ? to_float(__ldg(g.bias + row)) : 0.f;
            }
    }
};

// Finishes eight tokens. token_scale: of tokens 2 * (lane % 4) and the next. sums: of slab; then, as wgmma orders them,
// half and token. added: an EARLY_RESIDUAL. angles: EARLY_ANGLES.
DEVICE void finish(const Arguments &g, const Place &p, const RowFactors &factors, float2 token_scale, int column,
                   const float (&sums)[2][4], uint4 added, Angles angles) {
    u32 turned[2][2];   // of slab and half: two neighbouring outputs of token `token`
#pragma unroll
    for (int slab = 0; slab < 2; slab++) {
        float v[2][2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float scale = factors.scale[slab][half], bias = factors.bias[slab][half];
            v[half][0] = sums[slab][2 * half] * scale * token_scale.x + bias;
            v[half][1] = sums[slab][2 * half + 1] * scale * token_scale.y + bias;
        }
        if (EPILOGUE == GATED) {
            turned[slab][0] = transpose(to_bf16(gated(v[0][0], v[1][0]), gated(v[0][1], v[1][1])));
        } else {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (EPILOGUE == GELU) v[half][0] = gelu(v[half][0]), v[half][1] = gelu(v[half][1]);
                turned[slab][half] = transpose(to_bf16(v[half][0], v[half][1]));
            }
        }
    }
    const int token = p.token_of(column);
    if (EPILOGUE == GATED) {
        store(g, token, p.pair(), g.outputs / 2, uint2{turned[0][0], turned[1][0]});
    } else if (EPILOGUE == ROTARY) {
        constexpr int HALF = HEAD_DIM / 2;
        const int head = p.pair() / HALF, d = p.pair() % HALF;
        uint2 first_half = {turned[0][0], turned[1][0]}, second_half = {turned[0][1], turned[1][1]};
        if (head < ROTARY_HEADS && token < g.tokens) {
            if (!EARLY_ANGLES) angles.load(g, p, column);
            const float4 c = angles.cosines, s = angles.sines;
            const float a[4] = {low(first_half.x), high(first_half.x), low(first_half.y), high(first_half.y)};
            const float b[4] = {low(second_half.x), high(second_half.x), low(second_half.y), high(second_half.y)};
            first_half = {to_bf16(a[0] * c.x - b[0] * s.x, a[1] * c.y - b[1] * s.y),
                          to_bf16(a[2] * c.z - b[2] * s.z, a[3] * c.w - b[3] * s.w)};
            second_half = {to_bf16(b[0] * c.x + a[0] * s.x, b[1] * c.y + a[1] * s.y),
                           to_bf16(b[2] * c.z + a[2] * s.z, b[3] * c.w + a[3] * s.w)};
        }
        store(g, token, head * HEAD_DIM + d, g.outputs, first_half);
        store(g, token, head * HEAD_DIM + HALF + d, g.outputs, second_half);
    } else {
        const uint4 made = {turned[0][0], turned[0][1], turned[1][0], turned[1][1]};
        if (EARLY_RESIDUAL) store_at(g, token, p.eight(), g.outputs, add(made, added));
        else store(g, token, p.eight(), g.outputs, made);
    }
}

// Stores sums of two tokens of a split product, in the order of the outputs. Two lanes exchange a slab each, so that one
// has four neighbouring outputs.
DEVICE void store_sums(const Arguments &g, const Place &p, int part, int column, const Sum (&sums)[2][4]) {
    const bool odd = p.lane / 4 % 2;
    const int output = p.row + p.group / TOKEN_GROUPS * 128 + p.warp * 32 + p.lane / 4 * 4;
#pragma unroll
    for (int next = 0; next < 2; next++) {
        Sum mine[2], others[2];   // of half: this lane's, and its neighbour's
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const Sum first = sums[0][2 * half + next], second = sums[1][2 * half + next];
            mine[half] = odd ? second : first;
            others[half] = __shfl_xor_sync(~0u, odd ? first : second, 4);
        }
        const Sum a[2] = {odd ? others[0] : mine[0], odd ? others[1] : mine[1]};   // of half, even rows
        const Sum b[2] = {odd ? mine[0] : others[0], odd ? mine[1] : others[1]};   // odd rows
        const Sum four[4] = {a[0], PAIRS ? a[1] : b[0], PAIRS ? b[0] : a[1], b[1]};
        const int token = p.token + (p.group % TOKEN_GROUPS * COLUMNS + column) * 8 + p.lane % 4 * 2 + next;
        int4 stored;
        memcpy(&stored, four, 16);
        if (token < g.tokens && output < g.outputs)
            *(int4 *)(g.parts + ((u64)part * g.tokens + token) * g.outputs + output) = stored;
    }
}

// The row of the weight that makes an output.
DEVICE int row_of(int output) {
    const int warp = output / 32 % 4, pair = output / 8 % 4, slab = output / 4 % 2;
    const int half = PAIRS ? output % 2 : output / 2 % 2, one = PAIRS ? output / 2 % 2 : output % 2;
    return output / 128 * 128 + slab * 64 + warp * 16 + half * 8 + pair * 2 + one;
}

// Adds up the parts of a split product; a thread makes four outputs. Grid: (outputs / 1,024, tokens), 256 threads.
extern "C" __global__ void __launch_bounds__(256) gemm_finish(const __grid_constant__ Arguments g) {
    const int output = (blockIdx.x * 256 + threadIdx.x) * 4, token = blockIdx.y;
    launch_dependents();
    if (output >= g.outputs) return;
    float scale[4], total[4];
    float bias[4] = {};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        scale[i] = __ldg(g.weight_scales + row_of(output + i));
        if (BIASED) bias[i] = to_float(__ldg(g.bias + row_of(output + i)));
    }
    wait_for_previous_kernel();
    Sum sum[4] = {};
#pragma unroll
    for (int part = 0; part < SPLIT; part++) {
        const int4 found = __ldcg((const int4 *)(g.parts + ((u64)part * g.tokens + token) * g.outputs + output));
        Sum added[4];
        memcpy(added, &found, 16);
#pragma unroll
        for (int i = 0; i < 4; i++) sum[i] += added[i];
    }
    const float token_scale = load_written(g.token_scales + token);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        total[i] = (float)sum[i] * scale[i] * token_scale + bias[i];
        if (EPILOGUE == GELU) total[i] = gelu(total[i]);
    }
    if (EPILOGUE == GATED) {
        const u32 made = to_bf16(gated(total[0], total[1]), gated(total[2], total[3]));
        store(g, token, output / 2, g.outputs / 2, made);
    } else if (EPILOGUE == ROTARY) {
        constexpr int HALF = HEAD_DIM / 2;
        const int head = output / HEAD_DIM, d = output / 2 % HALF;
        u32 first = to_bf16(total[0], total[2]), second = to_bf16(total[1], total[3]);
        if (head < ROTARY_HEADS) {
            const float2 c = __ldg((const float2 *)(g.cosines + token * HALF + d));
            const float2 s = __ldg((const float2 *)(g.sines + token * HALF + d));
            const float a[2] = {low(first), high(first)}, b[2] = {low(second), high(second)};
            first = to_bf16(a[0] * c.x - b[0] * s.x, a[1] * c.y - b[1] * s.y);
            second = to_bf16(b[0] * c.x + a[0] * s.x, b[1] * c.y + a[1] * s.y);
        }
        store(g, token, head * HEAD_DIM + d, g.outputs, first);
        store(g, token, head * HEAD_DIM + HALF + d, g.outputs, second);
    } else {
        store(g, token, output, g.outputs, uint2{to_bf16(total[0], total[1]), to_bf16(total[2], total[3])});
    }
}

// Multiplies one step of both slabs of a warp group, and arrives at `used` when the step before, if any, has ended.
// weight: this group's rows of it, in shared memory.
DEVICE void multiply(Sum (&sums)[2][GROUP_TOKENS / 2], u32 weight, u32 codes, bool more, u32 used) {
    hold(sums[0]), hold(sums[1]);
    wgmma_begin();
#pragma unroll
    for (int k = 0; k < CHANNELS; k += 32) {
        const u64 columns = wgmma_rows(codes + k);
        wgmma(sums[0], wgmma_rows(weight + k), columns, more || k > 0);
        wgmma(sums[1], wgmma_rows(weight + 64 * CHANNELS + k), columns, more || k > 0);
    }
    wgmma_commit();
    wgmma_wait<1>();
    if (more && threadIdx.x % 32 == 0) mbarrier_arrive(used, 0);
}

// The same for packed codes. weight: of this thread. An instruction reads its registers while it runs: those of a slab
// are written again when its instruction before has ended, and that of the other slab runs.
DEVICE void multiply_packed(Sum (&sums)[2][GROUP_TOKENS / 2], u32 weight, u32 codes, bool more, u32 used) {
    u32 rows[2][4];
    uint4 loaded[2];   // of slab: for two instructions
#pragma unroll
    for (int k = 0; k < CHANNELS; k += 32) {
        const u64 columns = wgmma_rows(codes + k);
#pragma unroll
        for (int slab = 0; slab < 2; slab++) {
            if (k % 64 == 0 && slab == 0) {
                loaded[0] = load_shared(weight + k / 64 * BLOCK_BYTES);
                loaded[1] = load_shared(weight + k / 64 * BLOCK_BYTES + SLAB_BYTES);
            }
            const uint4 &l = loaded[slab];
            wgmma_wait<1>();
            if (k == 0 && slab == 1 && more && threadIdx.x % 32 == 0) mbarrier_arrive(used, 0);
            unpack(rows[slab], k % 64 ? l.z : l.x, k % 64 ? l.w : l.y);
            wgmma_begin();
            wgmma(sums[slab], rows[slab], columns, more || k > 0);
            wgmma_commit();
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT) gemm(const __grid_constant__ Arguments g) {
    __shared__ __align__(8) u64 barriers[2 * STAGES];
    __shared__ float2 token_scales[2][TILE_TOKENS / 2];   // of this tile and the next
    const u32 full = (u32)__cvta_generic_to_shared(barriers), empty = full + 8 * STAGES;
    const u32 buffer = ((u32)__cvta_generic_to_shared(smem) + 1023) / 1024 * 1024;
    const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);   // so that the compiler knows it as the same in a warp
    if (threadIdx.x == 0) {
        if (!PACKED) prefetch_map(&g.weight);
        prefetch_map(&g.codes);
        for (int i = 0; i < STAGES; i++) mbarrier_init(full + 8 * i, 1), mbarrier_init(empty + 8 * i, WARPS);
        fence_mbarrier_init();
    }
    __syncthreads();
    launch_dependents();
    int stage = 0;
    u32 parity = 0;

    if (warp >= WARPS) {
        if (WIDE) give_registers<24>();
        if (threadIdx.x == 32 * WARPS) {
            const Work work(g);
            const auto load_weight = [&](int stage, int step, int row) {
                const u32 to = buffer + stage * STAGE_BYTES, barrier = full + 8 * stage;
                const int steps = (g.channels + CHANNELS - 1) / CHANNELS;
                if (PACKED) {
                    const bool all = row + OUTPUTS <= g.outputs;   // or the last group has no outputs
                    const unsigned char *from = g.packed + (u64)(row / 128 * steps + step) * GROUP_BYTES;
                    mbarrier_expect(barrier, all ? STAGE_BYTES : STAGE_BYTES - GROUP_BYTES);
                    load_bytes(to, from, GROUP_BYTES, barrier);
                    if (OUTPUT_GROUPS > 1 && all)
                        load_bytes(to + GROUP_BYTES, from + steps * GROUP_BYTES, GROUP_BYTES, barrier);
                } else {
                    mbarrier_expect(barrier, STAGE_BYTES);
                    load_box(to, &g.weight, step * CHANNELS, row, barrier);
                }
            };
            int ahead = min(STAGES, work.last_step - work.first_step);   // steps whose weight is loaded before
#pragma unroll 1
            for (int i = 0; i < ahead; i++) load_weight(i, work.first_step + i, work.row(work.first));
            wait_for_previous_kernel();
            for (int tile = work.first; tile < work.tiles; tile += work.apart) {
                const int token = work.token(tile), row = work.row(tile);
                for (int step = work.first_step; step < work.last_step; step++) {
                    if (--ahead < 0) {
                        mbarrier_wait(empty + 8 * stage, parity ^ 1);
                        load_weight(stage, step, row);
                    }
                    load_box(buffer + stage * STAGE_BYTES + WEIGHT_BYTES, &g.codes, step * CHANNELS, token,
                             full + 8 * stage);
                    if (++stage == STAGES) stage = 0, parity ^= 1;
                }
            }
        }
        __syncwarp();
    } else {
        if (WIDE) take_registers<240>();
        const Work work(g);
        const int group = warp / 4, lane = threadIdx.x % 32;
        const int outputs_before = group / TOKEN_GROUPS, tokens_before = group % TOKEN_GROUPS * GROUP_TOKENS;   // in a tile
        const u32 mine = PACKED ? outputs_before * GROUP_BYTES + threadIdx.x % 128 * 16 : outputs_before * 128 * CHANNELS;
        Sum sums[2][GROUP_TOKENS / 2];
        int turn = 0;
        if (WIDE) wait_for_previous_kernel();   // here it costs no register
        for (int tile = work.first; tile < work.tiles; tile += work.apart) {
            const Place p = {group, warp % 4, lane, work.row(tile), work.token(tile)};
            RowFactors factors;
            factors.load(g, p);
            Angles angles[EARLY_ANGLES ? COLUMNS : 1] = {};
            if (EARLY_ANGLES)
#pragma unroll
                for (int column = 0; column < COLUMNS; column++) angles[column].load(g, p, column);
            if (!WIDE && tile == work.first) wait_for_previous_kernel();
            turn ^= 1;
            if (threadIdx.x < TILE_TOKENS)
                ((float *)token_scales[turn])[threadIdx.x] =
                    load_written(g.token_scales + min(work.token(tile) + (int)threadIdx.x, g.tokens - 1));
            uint4 added[EARLY_RESIDUAL ? COLUMNS : 1] = {};
            if (EARLY_RESIDUAL)
#pragma unroll
                for (int column = 0; column < COLUMNS; column++)
                    added[column] = residual_at<uint4>(g, p.token_of(column), p.eight(), g.outputs);
            int before = 0;   // the stage of the previous step
            for (int step = work.first_step; step < work.last_step; step++) {
                const u32 weight = buffer + stage * STAGE_BYTES, codes = weight + WEIGHT_BYTES + tokens_before * CHANNELS;
                const bool more = step > work.first_step;
                mbarrier_wait(full + 8 * stage, parity);
                if (PACKED) multiply_packed(sums, weight + mine, codes, more, empty + 8 * before);
                else multiply(sums, weight + mine, codes, more, empty + 8 * before);
                before = stage;
                if (++stage == STAGES) stage = 0, parity ^= 1;
            }
            wgmma_wait<0>();
            hold(sums[0]), hold(sums[1]);
            if (lane == 0) mbarrier_arrive(empty + 8 * before, 0);
            sync_consumers();
#pragma unroll
            for (int column = 0; column < COLUMNS; column++) {
                float found[2][4];
                Sum kept[2][4];
#pragma unroll
                for (int slab = 0; slab < 2; slab++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        found[slab][i] = (float)sums[slab][4 * column + i];
                        kept[slab][i] = sums[slab][4 * column + i];
                    }
                }
                if (SPLIT > 1) store_sums(g, p, work.part, column, kept);
                else
                    finish(g, p, factors, token_scales[turn][tokens_before / 2 + column * 4 + lane % 4], column, found,
                           added[EARLY_RESIDUAL ? column : 0], angles[EARLY_ANGLES ? column : 0]);
            }
        }
    }
}
