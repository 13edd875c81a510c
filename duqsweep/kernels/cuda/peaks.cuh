// The largest channel of a token whose slices lie with the ranks of a cluster.
#pragma once
#include "memory.cuh"

// peak: of the slice here; a warp a token. Ranks swap theirs through the signal.
__device__ __forceinline__ float peak_of_ranks(float peak, Signal which, int parity, const Place &p) {
    const int row = AT_PEAKS + p.warp * RANKS * 4;
    if (p.lane < RANKS) push(row + p.rank * 4, p.lane, which, __float_as_uint(peak));
    await(which, parity);
#pragma unroll
    for (int rank = 0; rank < RANKS; rank++) peak = fmaxf(peak, shared<float>(row + rank * 4));
    return peak;
}
