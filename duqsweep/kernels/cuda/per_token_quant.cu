// Norm, permutation, block Hadamard rotation and rounding of tokens in bfloat16 to codes of int8 or e4m3.
//
// A CTA holds one token. A warp rotates 16 spans of 16 channels at once: their values times the signs of the
// Walsh-Hadamard matrix, on tensor cores, which multiply and add ±bfloat16 exactly as float32 does. Blocks of more than
// 16 channels then add up spans, which are in different lanes. The order of channels within the operands is chosen so
// that a lane loads and stores four neighbours.
//
// The compiler command defines WIDTH (a multiple of 16), WARPS, TILES (spans of 256 channels per warp), BLOCK (1, no
// rotation, to 128), PERMUTED, NORM (0: none, 1: RMS, 2: layer norm), E4M3, SOURCE and PARTS:
//   SOURCE 0   tokens are rows.
//   SOURCE 1   a token is the result of attention for PARTS parts of the keys, with HEADS heads.
//   SOURCE 2   a token is a product, whose PARTS parts gemm.cu has stored; this kernel also stores the product.
#include "hopper.cuh"
#include "rounding.cuh"

constexpr int THREADS = 32 * WARPS, SPAN = 16, EIGHTS = (WIDTH / 8 + THREADS - 1) / THREADS;
constexpr float SMALLEST_SCALE = 1e-8f, EPS = 1e-6f, SHARE = 1.f / WIDTH;   // as in triton_math.py and norms.py
constexpr bool FROM_SHARED = PERMUTED || NORM || SOURCE;
constexpr bool KEPT = TILES <= 3;   // rotated values stay in registers; otherwise they are rotated again

struct Arguments {
    const u16 *rows;
    const int *permutation;               // the input channel of each permuted position
    const float *norm_weight, *norm_bias; // permuted
    unsigned char *codes;
    float *scales;
    const void *parts;                    // (PARTS, tokens, WIDTH) float32, or int32 of a product
    const float *logs;                    // of attention: (PARTS, tokens, HEADS), see attention.py
    const float *weight_scales, *token_scales;   // of a product: (WIDTH) in the order of its weight's rows, (tokens)
    const u16 *bias, *residual;           // or null: (WIDTH) in that order, (tokens, WIDTH)
    u16 *out;                             // (tokens, WIDTH): the product
    long long row_stride;
    float qmax;
};

__shared__ float warp_values[2][WARPS];

DEVICE float sum_of_cta(float value, float *places, int warp, int lane) {
#pragma unroll
    for (int mask = 16; mask; mask /= 2) value += __shfl_xor_sync(~0u, value, mask);
    if (lane == 0) places[warp] = value;
    __syncthreads();
    float total = 0.f;
#pragma unroll
    for (int i = 0; i < WARPS; i++) total += places[i];
    return total;
}

// The entry of the Walsh-Hadamard matrix within a span, in bfloat16.
DEVICE u32 sign(int row, int column) {
    if (BLOCK < SPAN && row / BLOCK != column / BLOCK) return 0;
    return __popc(row & column & (BLOCK < SPAN ? BLOCK - 1 : SPAN - 1)) & 1 ? 0xbf80u : 0x3f80u;
}

DEVICE void mma(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The signs that a lane gives to mma: of two products, which make channels 0, 1 and 2, 3 of each four.
struct Signs {
    u32 words[2][2];
    DEVICE Signs(int lane) {
#pragma unroll
        for (int product = 0; product < 2; product++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int row = lane % 4 * 4 + half * 2, column = lane / 8 * 4 + product * 2 + lane / 4 % 2;
                words[product][half] = sign(row, column) | sign(row + 1, column) << 16;
            }
    }
};

// Rotates a tile; without the factor 1 / sqrt(BLOCK). raw: of span lane / 4 four channels, of span lane / 4 + 8 four.
// turned: the same channels.
DEVICE void rotate(float (&turned)[2][4], const u32 (&raw)[2][2], const Signs &signs, int lane) {
    const u32 a[4] = {raw[0][0], raw[1][0], raw[0][1], raw[1][1]};
#pragma unroll
    for (int product = 0; product < 2; product++) {
        float c[4] = {};
        mma(c, a, signs.words[product][0], signs.words[product][1]);
#pragma unroll
        for (int i = 0; i < 4; i++) turned[i / 2][product * 2 + i % 2] = c[i];
    }
#pragma unroll
    for (int distance = 1; distance < BLOCK / SPAN; distance *= 2) {
        const float own = lane / 4 & distance ? -1.f : 1.f;
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                turned[half][i] = fmaf(own, turned[half][i], __shfl_xor_sync(~0u, turned[half][i], 4 * distance));
    }
}

// What eight outputs of a product are multiplied by and what is added.
struct Factors {
    float2 scales[4];
    u32 bias[4];
    DEVICE void load(const Arguments &g, int eight) {
        // Outputs 4 slab + 2 half + one of eight are rows 64 slab + 8 half + one of the weight, see gemm.row_order.
        const int first = eight / 16 * 128 + eight / 4 % 4 * 16 + eight % 4 * 2;
#pragma unroll
        for (int pair = 0; pair < 4; pair++) {
            const int at = first + pair / 2 * 64 + pair % 2 * 8;
            scales[pair] = load_early((const float2 *)(g.weight_scales + at));
            bias[pair] = g.bias ? load_early((const u32 *)(g.bias + at)) : 0;
        }
    }
};

// Eight channels of a token. factors: of a product.
DEVICE uint4 load_eight(const Arguments &g, int eight, const Factors &factors) {
#if SOURCE == 1
    constexpr int PER_HEAD = WIDTH / HEADS / 8;
    const u64 rows = gridDim.x, row = blockIdx.x;
    float logs[PARTS], top = -3e38f, sum = 0.f, total[8] = {};
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        logs[part] = load_written(g.logs + (part * rows + row) * HEADS + eight / PER_HEAD);
        top = fmaxf(top, logs[part]);
    }
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        const float weight = exp2f(logs[part] - top);
        const float4 *from = (const float4 *)g.parts + ((part * rows + row) * WIDTH) / 4 + 2 * eight;
        const float4 a = load_written(from), b = load_written(from + 1);
        const float values[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
        sum += weight;
#pragma unroll
        for (int i = 0; i < 8; i++) total[i] += weight * values[i];
    }
    const float inverse = 1.f / sum;
#pragma unroll
    for (int i = 0; i < 8; i++) total[i] *= inverse;
    return {to_bf16(total[0], total[1]), to_bf16(total[2], total[3]), to_bf16(total[4], total[5]),
            to_bf16(total[6], total[7])};
#elif SOURCE == 2
    const u64 rows = gridDim.x, row = blockIdx.x;
    const float token_scale = load_written(g.token_scales + row);
    int4 sums[PARTS][2];
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        const int4 *from = (const int4 *)g.parts + ((part * rows + row) * WIDTH) / 4 + 2 * eight;
        sums[part][0] = load_written(from), sums[part][1] = load_written(from + 1);
    }
    uint4 added = {0, 0, 0, 0};
    if (g.residual) added = load_written((const uint4 *)(g.residual + row * WIDTH) + eight);
    int total[8] = {};
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
        const int4 a = sums[part][0], b = sums[part][1];
        const int eight_sums[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < 8; i++) total[i] += eight_sums[i];
    }
    u32 made[4];
#pragma unroll
    for (int pair = 0; pair < 4; pair++) {
        const float2 scale = factors.scales[pair];
        const u32 bias = factors.bias[pair];
        made[pair] = to_bf16((float)total[2 * pair] * scale.x * token_scale + low(bias),
                             (float)total[2 * pair + 1] * scale.y * token_scale + high(bias));
    }
    if (g.residual) {
        const u32 pairs[4] = {added.x, added.y, added.z, added.w};
#pragma unroll
        for (int i = 0; i < 4; i++)
            made[i] = to_bf16(low(made[i]) + low(pairs[i]), high(made[i]) + high(pairs[i]));
    }
    const uint4 stored = {made[0], made[1], made[2], made[3]};
    *((uint4 *)(g.out + row * WIDTH) + eight) = stored;
    return stored;
#else
    return load_written((const uint4 *)(g.rows + blockIdx.x * g.row_stride) + eight);
#endif
}

extern "C" __constant__ int shared_bytes = 0;

extern "C" __global__ void __launch_bounds__(THREADS) per_token_quant(const __grid_constant__ Arguments g) {
    __shared__ __align__(16) u16 row[FROM_SHARED ? WIDTH : 8];
    launch_dependents();
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Signs signs(lane);
    // Channel of a lane's four in a tile's first or second half of spans.
    const auto channel_of = [&](int tile, int half) {
        return ((tile * WARPS + warp) * SPAN + half * 8 + lane / 4) * SPAN + lane % 4 * 4;
    };
    int4 sources[TILES][2];
    float4 weights[TILES][2], shifts[TILES][2];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int channel = channel_of(tile, half);
            if (!FROM_SHARED || channel >= WIDTH) continue;
            sources[tile][half] = PERMUTED ? load_early((const int4 *)(g.permutation + channel))
                                           : make_int4(channel, channel + 1, channel + 2, channel + 3);
            if (NORM) weights[tile][half] = load_early((const float4 *)(g.norm_weight + channel));
            if (NORM == 2) shifts[tile][half] = load_early((const float4 *)(g.norm_bias + channel));
        }
    Factors factors[SOURCE == 2 ? EIGHTS : 1];
    if (SOURCE == 2)
#pragma unroll
        for (int i = 0; i < EIGHTS; i++)
            if (i * THREADS + threadIdx.x < WIDTH / 8) factors[i].load(g, i * THREADS + threadIdx.x);
    wait_for_previous_kernel();

    float mean = 0.f, inverse = 1.f;
    if (FROM_SHARED) {
        uint4 eights[EIGHTS];
        float sum = 0.f, squares = 0.f;
#pragma unroll
        for (int i = 0; i < EIGHTS; i++) {
            const int eight = i * THREADS + threadIdx.x;
            eights[i] = eight < WIDTH / 8 ? load_eight(g, eight, factors[SOURCE == 2 ? i : 0]) : uint4{0, 0, 0, 0};
            if (eight < WIDTH / 8) ((uint4 *)row)[eight] = eights[i];
        }
        if (NORM == 2) {
#pragma unroll
            for (int i = 0; i < EIGHTS; i++) {
                const u32 pairs[4] = {eights[i].x, eights[i].y, eights[i].z, eights[i].w};
#pragma unroll
                for (int j = 0; j < 4; j++) sum += low(pairs[j]) + high(pairs[j]);
            }
            mean = sum_of_cta(sum, warp_values[0], warp, lane) * SHARE;
        }
        if (NORM) {
#pragma unroll
            for (int i = 0; i < EIGHTS; i++) {
                const u32 pairs[4] = {eights[i].x, eights[i].y, eights[i].z, eights[i].w};
                if (i * THREADS + threadIdx.x < WIDTH / 8)
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        const float a = low(pairs[j]) - mean, b = high(pairs[j]) - mean;
                        squares += a * a + b * b;
                    }
            }
            inverse = rsqrtf(sum_of_cta(squares, warp_values[1], warp, lane) * SHARE + EPS);
        } else {
            __syncthreads();
        }
    }

    u32 raw[TILES][2][2];
#pragma unroll
    for (int tile = 0; tile < TILES; tile++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int channel = channel_of(tile, half);
            uint2 pairs = {0, 0};
            if (channel < WIDTH && FROM_SHARED) {
                const int4 s = sources[tile][half];
                if (NORM) {
                    const float4 w = weights[tile][half];
                    const float4 shift = NORM == 2 ? shifts[tile][half] : float4{0.f, 0.f, 0.f, 0.f};
                    const auto normed = [&](int channel, float weight, float shift) {
                        return (to_float(row[channel]) - mean) * inverse * weight + shift;
                    };
                    pairs.x = to_bf16(normed(s.x, w.x, shift.x), normed(s.y, w.y, shift.y));
                    pairs.y = to_bf16(normed(s.z, w.z, shift.z), normed(s.w, w.w, shift.w));
                } else {
                    pairs.x = row[s.x] | (u32)row[s.y] << 16, pairs.y = row[s.z] | (u32)row[s.w] << 16;
                }
            } else if (channel < WIDTH) {
                pairs = load_written((const uint2 *)(g.rows + blockIdx.x * g.row_stride + channel));
            }
            raw[tile][half][0] = pairs.x, raw[tile][half][1] = pairs.y;
        }

    float turned[KEPT ? TILES : 1][2][4], amax = 0.f;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        auto &values = turned[KEPT ? tile : 0];
        rotate(values, raw[tile], signs, lane);
#pragma unroll
        for (int i = 0; i < 8; i++) amax = fmaxf(amax, fabsf(values[i / 4][i % 4]));
    }
    // Bit patterns of values >= 0 have the same order.
    amax = __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(amax)));
    if (NORM) __syncthreads();   // all have read the sums
    if (lane == 0) warp_values[0][warp] = amax;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < WARPS; i++) amax = fmaxf(amax, warp_values[0][i]);
    const float root = 1.f / sqrtf((float)BLOCK), scale = fmaxf(amax * root / g.qmax, SMALLEST_SCALE);
    const float factor = root / scale;
    if (threadIdx.x == 0) g.scales[blockIdx.x] = scale;
    unsigned char *to = g.codes + (u64)blockIdx.x * WIDTH;
#pragma unroll
    for (int tile = 0; tile < TILES; tile++) {
        auto &values = turned[KEPT ? tile : 0];
        if (!KEPT) rotate(values, raw[tile], signs, lane);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int channel = channel_of(tile, half);
            const auto &v = values[half];
            if (channel < WIDTH)
                *(u32 *)(to + channel) =
                    __byte_perm(round_pair(v[0], v[1], factor), round_pair(v[2], v[3], factor), 0x5410);
        }
    }
}
