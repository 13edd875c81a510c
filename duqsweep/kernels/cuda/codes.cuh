// bfloat16, and the way from a token's channels to int8 codes: block Hadamard, one scale a token, rounding.
#pragma once
#include "sizes.cuh"

__device__ __forceinline__ float wide(u16 value) { return __uint_as_float((u32)value << 16); }
__device__ __forceinline__ float low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ u32 narrow(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
__device__ __forceinline__ u16 narrow(float value) { return (u16)narrow(value, 0.f); }
__device__ __forceinline__ float rounded(float value) { return low(narrow(value, 0.f)); }

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int mask = 16; mask; mask /= 2) value += __shfl_xor_sync(~0u, value, mask);
    return value;
}
__device__ __forceinline__ float warp_peak(float value) {  // of values >= 0, which order as their bits do
    return __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(value)));
}

// Block Walsh-Hadamard transform, not divided by sqrt(BLOCK), of channels that lie N a lane.
template <int N> __device__ __forceinline__ void rotate(float (&v)[N], int lane) {
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
template <int N> __device__ __forceinline__ float peak_of(const float (&v)[N]) {
    float peak = 0.f;
#pragma unroll
    for (int i = 0; i < N; i++) peak = fmaxf(peak, fabsf(v[i]));
    return warp_peak(peak);
}
__device__ __forceinline__ float scale_of(float peak) {
    return fmaxf(peak * (1.f / sqrtf((float)BLOCK) / TOP), SMALLEST_SCALE);
}
// Codes of N channels, four in a word.
template <int N> __device__ __forceinline__ void pack(u32 (&words)[N / 4], const float (&v)[N], float scale) {
    const float factor = __fdividef(1.f / sqrtf((float)BLOCK), scale);
#pragma unroll
    for (int i = 0; i < N / 4; i++) {
        words[i] = 0;
#pragma unroll
        for (int j = 0; j < 4; j++) words[i] |= (u32)(__float2int_rn(v[4 * i + j] * factor) & 255) << (8 * j);
    }
}
