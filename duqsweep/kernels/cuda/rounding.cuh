// Rounding to the codes of int8 or e4m3, as E4M3 says.
#pragma once
#include "types.cuh"

// Rounds two channels to codes, in the lower bytes of the result.
DEVICE u32 round_pair(float first, float second, float factor) {
#if E4M3
    u16 pair;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(second * factor), "f"(first * factor));
    return pair;
#else
    constexpr float ROUNDING = 12582912.f;   // 1.5 * 2**23: the sum has the rounded value in its lowest bits
    return __byte_perm(__float_as_uint(fmaf(first, factor, ROUNDING)),
                       __float_as_uint(fmaf(second, factor, ROUNDING)), 0x40);
#endif
}
