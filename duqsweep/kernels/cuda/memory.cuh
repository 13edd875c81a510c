// Loads, copies, signals between the programs of a cluster, and the barrier of all.
#pragma once
#include "layout.cuh"

extern __shared__ __align__(128) unsigned char room[];

__device__ __forceinline__ u32 at(int offset) { return (u32)__cvta_generic_to_shared(room) + offset; }
template <typename Value> __device__ __forceinline__ Value &shared(int offset) { return *(Value *)(room + offset); }

// What another program wrote is read past the first-level cache.
template <int N> __device__ __forceinline__ void load_fresh(u32 (&words)[N], const void *from) {
    if constexpr (N == 2) {
        uint2 v = __ldcg((const uint2 *)from);
        words[0] = v.x, words[1] = v.y;
    } else {
#pragma unroll
        for (int i = 0; i < N / 4; i++) {
            uint4 v = __ldcg((const uint4 *)from + i);
            words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
        }
    }
}
// Of what no kernel writes; volatile, so that it stays ahead of the barrier.
template <int N> __device__ __forceinline__ void load(u32 (&words)[N], const void *from) {
    if constexpr (N == 2) {
        asm volatile("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(words[0]), "=r"(words[1]) : "l"(from));
    } else {
#pragma unroll
        for (int i = 0; i < N / 4; i++)
            asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(words[4 * i]), "=r"(words[4 * i + 1]), "=r"(words[4 * i + 2]), "=r"(words[4 * i + 3])
                         : "l"((const uint4 *)from + i));
    }
}
__device__ __forceinline__ void prefetch(const void *from, u32 bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void copy_async(u32 to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// A signal is a barrier in shared memory that counts the bytes that came. Its uses alternate in parity.
__device__ __forceinline__ u32 signal(Signal which) { return at(AT_SIGNALS + 8 * which); }
__device__ __forceinline__ void expect(Signal which, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(signal(which)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void await(Signal which, int parity) {
    u32 done;
    do
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(signal(which)), "r"(parity) : "memory");
    while (!done);
}
// Bytes from global memory; the signal expects them.
__device__ __forceinline__ void bring(int to, const void *from, u32 bytes, Signal which) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(at(to)), "l"(from), "r"(bytes), "r"(signal(which)) : "memory");
}
// Of a product that is made: counted where it costs no wait, and added up over all programs at the end.
__device__ __forceinline__ void count(Product product, const Place &p) {
    if (p.thread == COUNTER) asm volatile("red.shared.add.u32 [%0], 1;" ::"r"(at(AT_DONE + 4 * product)) : "memory");
}
__device__ __forceinline__ void report_counts(const Arguments &g, const Place &p) {
    if (p.thread != COUNTER) return;
    for (int i = 0; i < PRODUCTS; i++) atomicAdd(g.done + i, shared<u32>(AT_DONE + 4 * i));
}
// What ordinary instructions did to shared memory, before copies write there.
__device__ __forceinline__ void before_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A weight's fragments of this program, by one thread.
__device__ __forceinline__ void bring_weight(
    int to, const unsigned char *weight, int bytes, Signal which, int layer, const Place &p) {
    if (p.thread != COPIER) return;
    expect(which, bytes);
    bring(to, weight + ((u64)layer * CTAS + p.cta) * bytes, bytes, which);
}
// The rank's keys and values of the prefix, by one thread.
__device__ __forceinline__ void bring_prefix(const Arguments &g, int layer, const Place &p) {
    if (p.cluster * CLUSTER_TOKENS >= TOKENS || p.thread != COPIER) return;
    const u32 bytes = p.key_rows * KEY_PITCH;
    const unsigned char *from = g.keys_values + ((u64)layer * 2 * RANKS + p.rank) * bytes;
    expect(KEYS_IN, 2 * bytes);
    bring(AT_KEYS, from, bytes, KEYS_IN);
    bring(AT_VALUES, from + RANKS * bytes, bytes, KEYS_IN);
}

__device__ __forceinline__ u32 of_rank(u32 address, int rank) {
    u32 remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}
// To the same place in a rank's shared memory, whose signal counts the bytes.
__device__ __forceinline__ void push(int to, int rank, Signal which, u32 a) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];"
                 ::"r"(of_rank(at(to), rank)), "r"(a), "r"(of_rank(signal(which), rank)) : "memory");
}
__device__ __forceinline__ void push(int to, int rank, Signal which, u32 a, u32 b) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.u32 [%0], {%1, %2}, [%3];"
                 ::"r"(of_rank(at(to), rank)), "r"(a), "r"(b), "r"(of_rank(signal(which), rank)) : "memory");
}
__device__ __forceinline__ void push(int to, int rank, Signal which, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.u32 [%0], {%1, %2, %3, %4}, [%5];"
                 ::"r"(of_rank(at(to), rank)), "r"(a), "r"(b), "r"(c), "r"(d), "r"(of_rank(signal(which), rank))
                 : "memory");
}

// All programs of the GPU; what comes between `arrive` and `wait` overlaps with the others' work.
struct Meeting {
    u32 *arrivals, expected;
    __device__ __forceinline__ void arrive() {
        expected += CTAS;
        // Every thread waits for its own writes: all at once, and not one for all of them afterwards.
        asm volatile("fence.release.gpu;" ::: "memory");
        __syncthreads();
        if (threadIdx.x == 0) asm volatile("red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(arrivals) : "memory");
    }
    __device__ __forceinline__ void wait() const {
        if (threadIdx.x == 0) {
            u32 seen;
            do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrivals) : "memory");
            while (seen < expected);
        }
        __syncthreads();
    }
};

__device__ __forceinline__ void begin_signals() {
    if (threadIdx.x == COUNTER)
        for (int i = 0; i < PRODUCTS; i++) shared<u32>(AT_DONE + 4 * i) = 0;
    if (threadIdx.x == 0) {
        for (int i = 0; i < SIGNALS; i++)
            asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(signal((Signal)i)) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
