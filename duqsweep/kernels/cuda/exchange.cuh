// Values that CTAs exchange through global memory, and the barrier of the whole grid.
//
// The barrier does not order memory: to wait until writes are there would take 0.4 to 1.3 µs each time. Instead, the place of
// a value that is not there yet holds UNWRITTEN, and the reader loads it again. So there are two buffers of each stage, which
// iterations use in turn, and `reset_buffers` resets the other one.
#pragma once
#include "memory.cuh"

constexpr u32 UNWRITTEN = 0xffffffffu;   // two bfloat16 (a NaN, but conversions to bfloat16 give 0x7fff), or a float
constexpr u32 UNWRITTEN_CODES = E4M3 ? 0xffffffffu : 0x80808080u;   // four codes; a conversion to e4m3 gives NaN as 0x7f

// Loads from and stores to the L2 cache: L1 may hold an older value.
DEVICE u16 load_l2(const u16 *from) {
    u16 value;
    asm volatile("ld.relaxed.gpu.global.u16 %0, [%1];" : "=h"(value) : "l"(from) : "memory");
    return value;
}
DEVICE void load_l2(u32 (&words)[1], const void *from) {
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(words[0]) : "l"(from) : "memory");
}
DEVICE void load_l2(u32 (&words)[2], const void *from) {
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];"
                 : "=r"(words[0]), "=r"(words[1]) : "l"(from) : "memory");
}
template <int N> DEVICE void load_l2(u32 (&words)[N], const void *from) {
#pragma unroll
    for (int i = 0; i < N / 4; i++)
        asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(words[4 * i]), "=r"(words[4 * i + 1]), "=r"(words[4 * i + 2]), "=r"(words[4 * i + 3])
                     : "l"((const uint4 *)from + i) : "memory");
}
DEVICE void store_l2(u16 *to, u16 value) {
    asm volatile("st.relaxed.gpu.global.u16 [%0], %1;" ::"l"(to), "h"(value) : "memory");
}
DEVICE void store_l2(void *to, u32 value) {
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
DEVICE void store_l2(void *to, u32 first, u32 second) {
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(first), "r"(second) : "memory");
}

// Whether any of 2 * N bfloat16 is not written yet.
template <int N> DEVICE bool any_unwritten(const u32 (&words)[N]) {
    u32 largest = words[0];
#pragma unroll
    for (int i = 1; i < N; i++) asm("max.u16x2 %0, %0, %1;" : "+r"(largest) : "r"(words[i]));
    return (largest & 0xffff) == 0xffff || largest >> 16 == 0xffff;
}
// Loads 2 * N bfloat16, once they are written.
template <int N> DEVICE void load_written(u32 (&words)[N], const void *from) {
    do load_l2(words, from);
    while (any_unwritten(words));
}
// Starts to copy eight bfloat16, or CHECKs whether any of those in the copy was not written yet.
template <bool CHECK> DEVICE bool copy_written(int to, const u16 *from) {
    if (!CHECK) {
        copy_async(smem_addr(to), from);
        return false;
    }
    const uint4 v = shared<uint4>(to);
    const u32 words[4] = {v.x, v.y, v.z, v.w};
    return any_unwritten(words);
}


// Waits until this thread's writes are there.
DEVICE void wait_for_writes() { asm volatile("fence.release.gpu;" ::: "memory"); }

// During attention, the clusters that have no token reset the buffers; if all have one, all of them do.
constexpr int ATTENDING = (TOKENS + CLUSTER_TOKENS - 1) / CLUSTER_TOKENS;   // clusters that have a token
constexpr int RESETTING = ATTENDING < CLUSTERS ? CLUSTERS - ATTENDING : CLUSTERS;   // the last ones

template <int BYTES> DEVICE void reset(void *buffer, u32 unwritten, const ThreadPosition &p) {
    constexpr int STRIDE = RESETTING * RANKS * THREADS;
    for (int i = (p.cta - (CLUSTERS - RESETTING) * RANKS) * THREADS + p.thread; i < BYTES / 16; i += STRIDE)
        asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %1, %1, %1};" ::"l"((uint4 *)buffer + i), "r"(unwritten)
                     : "memory");
}
// Resets what no CTA reads any more in the attention phase of an iteration: the streams that the iteration is going to write,
// `stream` and the one after attention, and the `other` buffers, which the next one writes.
DEVICE void reset_buffers(const Arguments &g, int stream, int other, const ThreadPosition &p) {
    reset<TOKENS * WIDTH * 2>(stream_of(g, AFTER_ATTENTION), UNWRITTEN, p);
    reset<TOKENS * WIDTH * 2>(stream_of(g, stream), UNWRITTEN, p);
    reset<TOKENS * ATTN_WIDTH * 2>(g.queries + other * TOKENS * ATTN_WIDTH, UNWRITTEN, p);
    reset<TOKENS * DIM * 2>(g.keys + other * TOKENS * DIM, UNWRITTEN, p);
    reset<TOKENS * DIM * 2>(g.values + other * TOKENS * DIM, UNWRITTEN, p);
    reset<TOKENS * HIDDEN * 2>(g.hidden + other * TOKENS * HIDDEN, UNWRITTEN, p);
    reset<TOKENS * ATTN_WIDTH>(g.attn_codes + other * TOKENS * ATTN_WIDTH, UNWRITTEN_CODES, p);
    if (TILES_M > 1) reset<TOKENS * HIDDEN>(g.hidden_codes + other * TOKENS * HIDDEN, UNWRITTEN_CODES, p);
    if (p.cta == CTAS - 1 && p.thread < TOKENS) {
        store_l2(g.attn_scales + other * TOKENS + p.thread, UNWRITTEN);
        if (TILES_M > 1) store_l2(g.hidden_scales + other * TOKENS + p.thread, UNWRITTEN);
    }
}

// Barrier of all CTAs of the grid. Once all have arrived, they have read what they need of earlier phases, other CTAs of the
// cluster may write into their shared memory, and what they write is there or will be soon. A CTA arrives as early as this is
// true, so that the barrier takes little time when it is done with the phase.
struct GridBarrier {
    u32 *arrivals, expected;
    DEVICE void arrive() {
        expected += CTAS;
        if (threadIdx.x == 0) asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(arrivals) : "memory");
    }
    // At the end of a phase.
    DEVICE void arrive_together() {
        if (CLUSTER_TOKENS > 1) fence_before_bulk_load();   // of other ranks
        __syncthreads();
        arrive();
    }
    // At the end of a phase in which the CTA has arrived before. What the last warp does there, it does not wait for.
    DEVICE void finish() const {
        if (threadIdx.x < FINISHING) asm volatile("bar.sync 3, %0;" ::"n"(FINISHING) : "memory");
    }
    DEVICE void wait() const {
        if (threadIdx.x == POLL_THREAD) {
            u32 seen;
            do asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrivals) : "memory");
            while (seen < expected);
        }
        __syncthreads();
    }
};
