// Whether a large message between two processes of a host is better read by the receiver out of the sender's memory
// (process_vm_readv: one copy) than copied by the sender into shared memory and out of it by the receiver.
//
// `cross_memory LEN [HUGE]`: messages of LEN bytes, one way after the other (half a round trip) and four at a time
// (bandwidth). The sender writes to every cache line of a message first. HUGE 1: in huge pages.
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Messages under way, messages that a sender has memory for, and rounds.
enum { WINDOW = 4, OWN = 5, ROUNDS = 9 };

struct way {
    _Alignas(128) _Atomic uint64_t sent;
    _Alignas(128) _Atomic uint64_t done;
};

static size_t len;
static pid_t peer;
static struct way *ways;
static char *shared[2], *out[OWN], *in;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void put(int way, uint64_t n, int cross) {
    while (n > atomic_load_explicit(&ways[way].done, memory_order_acquire) + WINDOW)
        ;
    char *from = out[n % OWN];
    for (size_t i = 0; i < len; i += 64) from[i] = n;
    if (!cross) memcpy(shared[way] + n % WINDOW * len, from, len);
    atomic_store_explicit(&ways[way].sent, n, memory_order_release);
}

static void get(int way, uint64_t n, int cross) {
    while (atomic_load_explicit(&ways[way].sent, memory_order_acquire) < n)
        ;
    if (cross) {
        // Both have their memory at the same addresses.
        struct iovec to = {in, len}, from = {out[n % OWN], len};
        if (process_vm_readv(peer, &to, 1, &from, 1, 0) != (ssize_t)len) perror("process_vm_readv"), exit(1);
    } else {
        memcpy(in, shared[way] + n % WINDOW * len, len);
    }
    if (in[(len - 64) & ~(size_t)63] != (char)n) fprintf(stderr, "wrong contents\n"), exit(1);
    atomic_store_explicit(&ways[way].done, n, memory_order_release);
}

static int order(const void *a, const void *b) { return *(double *)a < *(double *)b ? -1 : 1; }

int main(int count, char **args) {
    len = atol(args[1]);
    int huge = count > 2 && atoi(args[2]);
    int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE;
    for (int i = 0; i < 2; i++) shared[i] = mmap(0, len * WINDOW, PROT_READ | PROT_WRITE, flags, -1, 0);
    ways = mmap(0, 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
    // Not at equal places of a page, nor of a cache.
    size_t step = len + 4096 + 320, all = ((OWN + 1) * step + (4 << 20)) >> 21 << 21;
    char *own = aligned_alloc(2 << 20, all);
    madvise(own, all, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    for (int i = 0; i < OWN; i++) out[i] = own + i * step;
    in = own + OWN * step;

    pid_t parent = getpid(), child = fork();
    int me = child == 0;
    peer = me ? parent : child;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(me, &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
    memset(own, 1, all);

    uint64_t n[2] = {0, 0}, messages = 2e8 / len + 50;
    double taken[2][2][ROUNDS];
    for (int round = 0; round < ROUNDS; round++)
        for (int many = 0; many < 2; many++)
            for (int cross = 0; cross < 2; cross++) {
                double start = now();
                for (uint64_t i = 0; i < messages; i++) {
                    me ? get(0, ++n[0], cross) : put(0, ++n[0], cross);
                    if (!many) me ? put(1, ++n[1], cross) : get(1, ++n[1], cross);
                }
                while (atomic_load(&ways[0].done) < n[0])
                    ;
                taken[many][cross][round] = (now() - start) / messages / (many ? 1 : 2);
            }
    if (me) return 0;
    wait(0);
    for (int many = 0; many < 2; many++) {
        double ratio[ROUNDS];
        for (int i = 0; i < ROUNDS; i++) ratio[i] = taken[many][1][i] / taken[many][0][i];
        qsort(ratio, ROUNDS, sizeof *ratio, order);
        for (int cross = 0; cross < 2; cross++) qsort(taken[many][cross], ROUNDS, sizeof(double), order);
        printf("%s: copied %.2f us a message, read across %.2f us, ratio %.2f (%.2f to %.2f)\n",
               many ? "four at a time" : "half a round trip", taken[many][0][ROUNDS / 2] * 1e6,
               taken[many][1][ROUNDS / 2] * 1e6, ratio[ROUNDS / 2], ratio[0], ratio[ROUNDS - 1]);
    }
}
