/* What a ring between two processors costs a message, without any layer: two threads, records of a header and
 * 64 bytes as in cl/src/shm/ring.rs, made visible an eighth of the ring at a time.
 *
 *   cc -O2 -pthread ring.c -o ring && ./ring [KiB of ring] [other stores for each message] [fetch]
 *
 * fetch: 0 for neither side, 1 for the producer, which asks for the lines that it will write (not by __builtin_prefetch, which
 * without -mprfchw asks for them to be read), 2 for the consumer, which asks for all lines published together, 3 for both;
 * 4 for a producer whose stores go past the caches (x86_64), but for the first record of those published together, 6 with 2.
 * Prints the time that a cache line takes from one processor to the other (half a round trip), and that of a message. */
#define _GNU_SOURCE
#include <emmintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { RECORD = 9, PARTS = 8, LINE = 8, ROUND_TRIPS = 100000, MESSAGES = 1000000, FILLED = 2, SKIP = 1, KINDS = 2 };

static uint64_t *ring;
static size_t words;
static int others, fetch;
static volatile uint64_t elsewhere[64];
static _Atomic uint64_t *consumed, *ball;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void *returns(void *unused) {
    (void)unused;
    pin(1);
    for (uint64_t i = 1; i <= ROUND_TRIPS; i++) {
        while (atomic_load(ball) != i) {}
        atomic_store(consumed, i);
    }
    return NULL;
}

static void release(uint64_t *held, uint64_t extent) {
    if (fetch & 4) _mm_sfence();
    __atomic_store_n(held, FILLED | extent << KINDS, __ATOMIC_RELEASE);
}

static void fetch_to_write(uint64_t *word) {
#if defined __x86_64__
    __asm__ volatile("prefetchw (%0)" ::"r"(word));
#else
    __builtin_prefetch(word, 1);
#endif
}

static void *produces(void *unused) {
    (void)unused;
    pin(0);
    uint64_t at = 0, known = 0, fetched = 0, since = 0, *held = NULL;
    for (uint64_t i = 0; i < MESSAGES; i++) {
        size_t index = at & (words - 1);
        size_t skip = index + RECORD < words ? 0 : words - index;
        while (at + skip + RECORD + 1 - known > words) {
            if (held) release(held, at - since);
            held = NULL;
            known = atomic_load_explicit(consumed, memory_order_acquire);
        }
        if (skip) {
            ring[0] = 0;
            __atomic_store_n(&ring[index], SKIP, __ATOMIC_RELEASE);
            at += skip;
            index = 0;
        }
        for (int k = 0; k < others; k++) elsewhere[k] = i;
        volatile uint64_t *record = &ring[index];
        int past = fetch & 4 && held, last = at + RECORD - since >= words / PARTS;
        for (int k = 1; k < RECORD; k++) {
            if (past) _mm_stream_si64((long long *)&ring[index + k], i + k);
            else record[k] = i + k;
        }
        if (!past || last) record[RECORD] = 0;
        at += RECORD;
        if (!held) {
            held = &ring[index];
            since = at - RECORD;
            uint64_t until = at + 2 * words / PARTS < known + words ? at + 2 * words / PARTS : known + words;
            if (fetched < at) fetched = (at + LINE - 1) / LINE * LINE;
            for (; fetch & 1 && fetched < until; fetched += LINE) fetch_to_write(&ring[fetched & (words - 1)]);
            continue;
        }
        if (past) _mm_stream_si64((long long *)&ring[index], FILLED);
        else __atomic_store_n(&ring[index], FILLED, __ATOMIC_RELAXED);
        if (at - since >= words / PARTS) {
            release(held, at - since);
            held = NULL;
        }
    }
    if (held) release(held, at - since);
    return NULL;
}

static void *consumes(void *unused) {
    (void)unused;
    pin(1);
    uint64_t at = 0, told = 0, sum = 0;
    for (uint64_t i = 0; i < MESSAGES;) {
        uint64_t *record = &ring[at & (words - 1)], header;
        while (!(header = __atomic_load_n(record, __ATOMIC_ACQUIRE))) {}
        if (header == SKIP) {
            at += words - (at & (words - 1));
            continue;
        }
        for (uint64_t k = LINE; fetch & 2 && k < header >> KINDS; k += LINE)
            __builtin_prefetch(&ring[(at + k) & (words - 1)]);
        for (int k = 1; k < RECORD; k++) sum += ((volatile uint64_t *)record)[k];
        at += RECORD;
        i++;
        if (at - told >= words / PARTS) {
            atomic_store_explicit(consumed, at, memory_order_release);
            told = at;
        }
    }
    return (void *)(uintptr_t)sum;
}

int main(int argc, char **argv) {
    size_t kib = argc > 1 ? strtoul(argv[1], NULL, 10) : 16;
    others = argc > 2 ? atoi(argv[2]) : 16;
    fetch = argc > 3 ? atoi(argv[3]) : 3;
    words = kib * 128;
    if (kib == 0 || (kib & (kib - 1)) || others < 0 || others > 64 || fetch < 0 || fetch > 7) {
        fprintf(stderr, "ring: KiB must be a power of two, other stores 0 to 64, fetch 0 to 7\n");
        return 1;
    }
    char *lines = aligned_alloc(4096, 8192);
    consumed = (void *)lines;
    ball = (void *)(lines + 4096);
    ring = mmap(NULL, words * 8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (ring == MAP_FAILED) return perror("ring: mmap"), 1;
    *consumed = *ball = 0;
    pthread_t other, another;
    double since = now();
    pthread_create(&other, NULL, returns, NULL);
    pin(0);
    for (uint64_t i = 1; i <= ROUND_TRIPS; i++) {
        atomic_store(ball, i);
        while (atomic_load(consumed) != i) {}
    }
    double trip = (now() - since) / ROUND_TRIPS / 2;
    pthread_join(other, NULL);
    *consumed = 0;
    since = now();
    pthread_create(&other, NULL, produces, NULL);
    pthread_create(&another, NULL, consumes, NULL);
    pthread_join(other, NULL);
    pthread_join(another, NULL);
    printf("a line one way %.0f ns, a message %.1f ns\n", trip * 1e9, (now() - since) / MESSAGES * 1e9);
    return 0;
}
