/* What it costs to copy messages into memory shared with another processor, which copies them out: two threads, a few buffers
 * used in turn, the writer's copy in four ways and the reader's in two.
 *
 *   cc -O2 -mavx2 -pthread copies.c -o copies && ./copies [bytes of a message] [buffers]
 *
 * Writer: memcpy; loop of 32-byte stores; the same, asking for the lines to be written 32 lines ahead; stores that go past the
 * caches (non-temporal). Reader: memcpy; loop that asks for lines 32 ahead. Prints the time that a cache line takes from one
 * processor to the other (half a round trip), and GB/s, the reader's ways side by side. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { LINE = 64, AHEAD = 32 * LINE, ROUND_TRIPS = 20000, WRITERS = 4, READERS = 2 };
static const size_t TOTAL = 256u << 20;

static char *shared;
static size_t len, buffers;
static long count;
static int reader;
static _Atomic int64_t *written, *consumed;

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

static void to_write(char *line) { __asm__ volatile("prefetchw (%0)" ::"r"(line)); }

static void copy(char *to, const char *from, int way) {
    for (size_t at = 0; at < len; at += LINE) {
        size_t next = at + AHEAD;
        if (way == 2 && next < len) to_write(to + next);
        if (way == 4 && next < len) _mm_prefetch(from + next, _MM_HINT_T0);
        __m256i a = _mm256_loadu_si256((const void *)(from + at)), b = _mm256_loadu_si256((const void *)(from + at + 32));
        if (way == 3) {
            _mm256_stream_si256((void *)(to + at), a);
            _mm256_stream_si256((void *)(to + at + 32), b);
        } else {
            _mm256_store_si256((void *)(to + at), a);
            _mm256_store_si256((void *)(to + at + 32), b);
        }
    }
    if (way == 3) _mm_sfence();
}

static void *reads(void *unused) {
    (void)unused;
    pin(1);
    char *own = aligned_alloc(4096, len);
    memset(own, 1, len);
    for (long i = 0; i < count; i++) {
        while (atomic_load_explicit(written, memory_order_acquire) <= i) {}
        const char *buffer = shared + i % buffers * len;
        reader == 0 ? (void)memcpy(own, buffer, len) : copy(own, buffer, 4);
        atomic_store_explicit(consumed, i + 1, memory_order_release);
    }
    free(own);
    return NULL;
}

static void *returns(void *unused) {
    (void)unused;
    pin(1);
    for (int64_t i = 1; i <= ROUND_TRIPS; i++) {
        while (atomic_load(written) != i) {}
        atomic_store(consumed, i);
    }
    return NULL;
}

int main(int argc, char **argv) {
    len = argc > 1 ? strtoul(argv[1], NULL, 10) : 65536;
    buffers = argc > 2 ? strtoul(argv[2], NULL, 10) : 4;
    if (len == 0 || len % 4096 || buffers == 0) {
        fprintf(stderr, "copies: bytes must be a multiple of 4096, buffers at least 1\n");
        return 1;
    }
    count = TOTAL / len;
    char *lines = aligned_alloc(4096, 8192), *own = aligned_alloc(4096, len);
    written = (void *)lines;
    consumed = (void *)(lines + 4096);
    *written = *consumed = 0;
    memset(own, 2, len);
    shared = mmap(NULL, len * buffers, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return perror("copies: mmap"), 1;
    pthread_t other;
    pin(0);
    double since = now();
    pthread_create(&other, NULL, returns, NULL);
    for (int64_t i = 1; i <= ROUND_TRIPS; i++) {
        atomic_store(written, i);
        while (atomic_load(consumed) != i) {}
    }
    pthread_join(other, NULL);
    printf("a line one way %.0f ns", (now() - since) / ROUND_TRIPS / 2 * 1e9);
    static const char *names[WRITERS] = {"memcpy", "stores", "asked for", "past caches"};
    for (int writer = 0; writer < WRITERS; writer++) {
        printf("; %s", names[writer]);
        for (reader = 0; reader < READERS; reader++) {
            *written = *consumed = 0;
            since = now();
            pthread_create(&other, NULL, reads, NULL);
            for (int64_t i = 0; i < count; i++) {
                while (i - atomic_load_explicit(consumed, memory_order_acquire) >= (int64_t)buffers) {}
                char *buffer = shared + i % buffers * len;
                writer == 0 ? (void)memcpy(buffer, own, len) : copy(buffer, own, writer);
                atomic_store_explicit(written, i + 1, memory_order_release);
            }
            pthread_join(other, NULL);
            printf(" %.1f", TOTAL / (now() - since) / 1e9);
        }
    }
    printf(" GB/s\n");
    return 0;
}
