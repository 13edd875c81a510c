// Short names of types, and conversions from and to bfloat16.
#pragma once

#define DEVICE __device__ __forceinline__

using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

DEVICE float to_float(u16 value) { return __uint_as_float((u32)value << 16); }
DEVICE float low(u32 pair) { return __uint_as_float(pair << 16); }
DEVICE float high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }
DEVICE u32 to_bf16(float low, float high) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
DEVICE u16 to_bf16(float value) { return (u16)to_bf16(value, 0.f); }
DEVICE float round_bf16(float value) { return low(to_bf16(value, 0.f)); }
