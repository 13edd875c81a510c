// Loads, asynchronous copies, and mbarriers within a cluster.
#pragma once
#include "layout.cuh"

extern __shared__ __align__(128) unsigned char smem[];

DEVICE u32 smem_addr(int offset) { return (u32)__cvta_generic_to_shared(smem) + offset; }
template <typename Value> DEVICE Value &shared(int offset) { return *(Value *)(smem + offset); }

// Reads what no CTA writes. volatile, so that the compiler does not move the load behind the grid barrier.
template <int N> DEVICE void load_readonly(u32 (&words)[N], const void *from) {
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
DEVICE void prefetch_l2(const void *from, u32 bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}
DEVICE void copy_async(u32 to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
DEVICE void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
// An mbarrier in shared memory counts the bytes that arrive. Its phase parity alternates with every use.
DEVICE u32 mbarrier(Mbarrier which) { return smem_addr(AT_MBARRIERS + 8 * which); }
DEVICE void expect_bytes(Mbarrier which, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(mbarrier(which)), "r"(bytes) : "memory");
}
DEVICE void wait_bytes(Mbarrier which, int parity) {
    u32 done;
    do
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(mbarrier(which)), "r"(parity) : "memory");
    while (!done);
}
// Asynchronous bulk copy (TMA) from global memory; the mbarrier must expect these bytes.
DEVICE void bulk_load(int to, const void *from, u32 bytes, Mbarrier which) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(smem_addr(to)), "l"(from), "r"(bytes), "r"(mbarrier(which)) : "memory");
}
// Counts a product that this CTA has computed, in shared memory, which costs no wait; report_counts adds the counters
// of all CTAs up at the end.
DEVICE void count_product(Product product, const ThreadPosition &p) {
    if (p.thread == COUNT_THREAD)
        asm volatile("red.shared.add.u32 [%0], 1;" ::"r"(smem_addr(AT_COUNTS + 4 * product)) : "memory");
}
DEVICE void report_counts(const Arguments &g, const ThreadPosition &p) {
    if (p.thread != COUNT_THREAD) return;
    for (int i = 0; i < PRODUCTS; i++) atomicAdd(g.product_counts + i, shared<u32>(AT_COUNTS + 4 * i));
}
// Orders this CTA's ordinary accesses to shared memory before bulk copies that write there.
DEVICE void fence_before_bulk_load() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// One thread starts the copy of this CTA's fragments of a weight, which come `number`th.
DEVICE void bulk_load_weight(
    int to, const unsigned char *weight, int bytes, Mbarrier which, int number, const ThreadPosition &p) {
    if (p.thread != COPY_THREAD) return;
    expect_bytes(which, bytes);
    bulk_load(to, weight + (u64)number * bytes, bytes, which);
}
// A chunk of a rank's keys, where `number` counts from 0.
struct KeyChunk {
    int number, first_row, rows, at_keys, at_values;
};
DEVICE KeyChunk first_keys(const ThreadPosition &p) {
    return {0, 0, CHUNKED ? min(p.key_rows, MAX_KEYS) : p.key_rows, AT_KEYS, AT_VALUES};
}
DEVICE KeyChunk keys_after(const KeyChunk &chunk, const ThreadPosition &p) {
    const int first = chunk.first_row + chunk.rows, at = chunk.number % 2 ? AT_VALUES : AT_KEYS;
    return {chunk.number + 1, first, min(p.key_rows - first, MORE_KEYS), at, at + MORE_KEYS * KEY_PITCH};
}
// One thread starts the copy of a chunk of this rank's keys and values of the prefix.
DEVICE void bulk_load_keys(const Arguments &g, const KeyChunk &chunk, int layer, const ThreadPosition &p) {
    if (p.cluster * CLUSTER_TOKENS >= TOKENS || p.thread != COPY_THREAD) return;
    const u32 of_rank = p.key_rows * KEY_PITCH, bytes = chunk.rows * KEY_PITCH;
    const unsigned char *from =
        g.keys_values + ((u64)layer * 2 * RANKS + p.rank) * of_rank + chunk.first_row * KEY_PITCH;
    const Mbarrier which = chunk.number ? MORE_KEYS_IN : KEYS_IN;
    expect_bytes(which, 2 * bytes);
    bulk_load(chunk.at_keys, from, bytes, which);
    bulk_load(chunk.at_values, from + RANKS * of_rank, bytes, which);
}

DEVICE u32 map_to_rank(u32 address, int rank) {
    u32 remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}
// Asynchronous store to the same offset in another rank's shared memory; that rank's mbarrier counts the bytes.
DEVICE void remote_store(int to, int rank, Mbarrier which, u32 a) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];"
                 ::"r"(map_to_rank(smem_addr(to), rank)), "r"(a), "r"(map_to_rank(mbarrier(which), rank))
                 : "memory");
}
DEVICE void remote_store(int to, int rank, Mbarrier which, u32 a, u32 b) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.u32 [%0], {%1, %2}, [%3];"
                 ::"r"(map_to_rank(smem_addr(to), rank)), "r"(a), "r"(b), "r"(map_to_rank(mbarrier(which), rank))
                 : "memory");
}
DEVICE void remote_store(int to, int rank, Mbarrier which, u32 a, u32 b, u32 c, u32 d) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.u32 [%0], {%1, %2, %3, %4}, [%5];"
                 ::"r"(map_to_rank(smem_addr(to), rank)), "r"(a), "r"(b), "r"(c), "r"(d),
                   "r"(map_to_rank(mbarrier(which), rank))
                 : "memory");
}

// Asynchronous bulk copy from this CTA's shared memory to another rank's, or to its own; that rank's mbarrier counts
// the bytes.
DEVICE void bulk_send(int to, int rank, int from, u32 bytes, Mbarrier which) {
    asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(map_to_rank(smem_addr(to), rank)), "r"(smem_addr(from)), "r"(bytes),
                   "r"(map_to_rank(mbarrier(which), rank))
                 : "memory");
}

DEVICE void init_mbarriers() {
    if (threadIdx.x == COUNT_THREAD)
        for (int i = 0; i < PRODUCTS; i++) shared<u32>(AT_COUNTS + 4 * i) = 0;
    if (threadIdx.x == 0) {
        for (int i = 0; i < MBARRIERS; i++)
            asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(mbarrier((Mbarrier)i)) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
