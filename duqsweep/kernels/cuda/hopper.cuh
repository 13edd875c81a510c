// Instructions of Hopper that CUDA C++ has no functions for. Addresses of shared memory are 32-bit.
#pragma once
#include "types.cuh"

// mbarriers: count arrivals, and the bytes of asynchronous copies. The phase parity alternates with every use.
// They order accesses within the CTA, which is enough for copies that the barrier counts: ordering for a cluster would
// wait for all stores to global memory and empty the L1 cache, in every step of a pipeline.
DEVICE void mbarrier_init(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
DEVICE void mbarrier_expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
// Arrives at the same barrier of a CTA of the cluster: what this thread's asynchronous products read may be overwritten.
// Nothing that the thread has written itself is passed on: a release for the cluster would be a fence for the whole GPU.
DEVICE void mbarrier_arrive(u32 barrier, u32 rank) {
    asm volatile("{ .reg .b32 remote; mapa.shared::cluster.u32 remote, %0, %1;"
                 "  mbarrier.arrive.shared::cluster.b64 _, [remote]; }"
                 ::"r"(barrier), "r"(rank) : "memory");
}
// Waits for arrivals and asynchronous copies, whichever CTA has started them. To acquire what other CTAs have stored, with
// the scope of the cluster, would empty the L1 cache.
DEVICE void mbarrier_wait(u32 barrier, u32 parity) {
    u32 done;
    do
        asm volatile("{ .reg .pred p;"
                     "  mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;"
                     "  selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
    while (!done);
}
DEVICE void fence_mbarrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Tensor memory accelerator (TMA): copies a box of a two-dimensional tensor to shared memory.
DEVICE void load_box(u32 to, const void *map, int column, int row, u32 barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%2, %3}], [%4];"
                 ::"r"(to), "l"(map), "r"(column), "r"(row), "r"(barrier) : "memory");
}
// Copies contiguous bytes to shared memory: a multiple of 16.
DEVICE void load_bytes(u32 to, const void *from, u32 bytes, u32 barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}
DEVICE void prefetch_map(const void *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Programmatic dependent launch.
DEVICE void launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
// Also empties the L1 cache of this multiprocessor: the wait alone leaves there what kernels before have loaded from memory
// that is now another tensor's. __ldg of what an earlier kernel writes stays wrong, since it may be moved before the wait.
DEVICE void wait_for_previous_kernel() { asm volatile("griddepcontrol.wait; fence.acquire.gpu;" ::: "memory"); }

// Loads of 4, 8 or 16 bytes that stay in their place.
#define LOAD(NAME, INSTRUCTION)                                                                              \
    template <typename T> DEVICE T NAME(const T *from) {                                                     \
        static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16, "");                              \
        int4 bits;                                                                                           \
        if constexpr (sizeof(T) == 16)                                                                       \
            asm volatile(INSTRUCTION ".v4.b32 {%0, %1, %2, %3}, [%4];"                                       \
                         : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w) : "l"(from) : "memory");   \
        else if constexpr (sizeof(T) == 8)                                                                   \
            asm volatile(INSTRUCTION ".v2.b32 {%0, %1}, [%2];"                                               \
                         : "=r"(bits.x), "=r"(bits.y) : "l"(from) : "memory");                               \
        else                                                                                                 \
            asm volatile(INSTRUCTION ".b32 %0, [%1];" : "=r"(bits.x) : "l"(from) : "memory");                \
        T found;                                                                                             \
        memcpy(&found, &bits, sizeof(T));                                                                    \
        return found;                                                                                        \
    }
// Of constants, before that wait: the compiler would move other loads to where their values are used, after it.
LOAD(load_early, "ld.global")
// Of what an earlier kernel has written, from L2; all are under way before the first value is used. Not __ldg: that may find
// in the L1 cache what was there when this kernel, which has started early, began.
LOAD(load_written, "ld.relaxed.gpu.global")
#undef LOAD

// Warp groups.
template <int N> DEVICE void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> DEVICE void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
DEVICE void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int GROUPS> DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GROUPS) : "memory");
}
// Describes rows of 128 bytes, as TMA writes them with a swizzle of 128 bytes; eight rows are 1,024 bytes.
DEVICE u64 wgmma_rows(u32 address) {
    return (u64)(address >> 4) | (u64)1 << 16 | (u64)(1024 >> 4) << 32 | (u64)1 << 62;
}

DEVICE uint4 load_shared(u32 address) {
    uint4 found;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(found.x), "=r"(found.y), "=r"(found.z), "=r"(found.w) : "r"(address) : "memory");
    return found;
}

// Transposes a matrix of 8 x 8 16-bit values: a lane holds two neighbours of a row, before and after.
DEVICE u32 transpose(u32 pair) {
    u32 turned;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(turned) : "r"(pair));
    return turned;
}
