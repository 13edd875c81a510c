// Per-token quantization to int8 or e4m3: block Hadamard rotation, amax, scale, rounding.
#pragma once
#include "exchange.cuh"
#include "rounding.cuh"

DEVICE float warp_sum(float value) {
#pragma unroll
    for (int mask = 16; mask; mask /= 2) value += __shfl_xor_sync(~0u, value, mask);
    return value;
}
DEVICE float warp_amax(float value) {  // values >= 0, whose bit patterns have the same order
    return __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(value)));
}

// Block Walsh-Hadamard transform without the factor 1 / sqrt(BLOCK); each lane has N consecutive channels.
template <int N> DEVICE void rotate(float (&v)[N], int lane) {
#pragma unroll
    for (int distance = 1; distance < BLOCK; distance *= 2) {
        if (distance < N) {
#pragma unroll
            for (int i = 0; i < N; i++)
                if (!(i & distance)) {
                    float a = v[i], b = v[i | distance];
                    v[i] = a + b, v[i | distance] = a - b;
                }
        } else {
            const int mask = distance / N;
            const float sign = lane & mask ? -1.f : 1.f;
#pragma unroll
            for (int i = 0; i < N; i++) v[i] = fmaf(sign, v[i], __shfl_xor_sync(~0u, v[i], mask));
        }
    }
}
template <int N> DEVICE float values_amax(const float (&v)[N]) {
    float amax = 0.f;
#pragma unroll
    for (int i = 0; i < N; i++) amax = fmaxf(amax, fabsf(v[i]));
    return warp_amax(amax);
}
DEVICE float scale_of(float amax) {
    return fmaxf(amax * (1.f / sqrtf((float)BLOCK) / QMAX), SMALLEST_SCALE);
}
// Rounds N channels to codes, four per word.
template <int N> DEVICE void pack(u32 (&words)[N / 4], const float (&v)[N], float scale) {
    const float factor = __fdividef(1.f / sqrtf((float)BLOCK), scale);
#pragma unroll
    for (int i = 0; i < N / 4; i++)
        words[i] = __byte_perm(round_pair(v[4 * i], v[4 * i + 1], factor),
                               round_pair(v[4 * i + 2], v[4 * i + 3], factor), 0x5410);
}

// The largest |x| of a token whose channels are divided among the ranks of a cluster. amax: of this rank's slice. One
// warp per token; ranks exchange their values through the mbarrier.
DEVICE float cluster_amax(float amax, Mbarrier which, int parity, const ThreadPosition &p) {
    const int row = AT_AMAX + p.warp * RANKS * 4;
    if (p.lane < RANKS) remote_store(row + p.rank * 4, p.lane, which, __float_as_uint(amax));
    wait_bytes(which, parity);
#pragma unroll
    for (int rank = 0; rank < RANKS; rank++) amax = fmaxf(amax, shared<float>(row + rank * 4));
    return amax;
}
