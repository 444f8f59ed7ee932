// What the programs in this directory share: arguments, pinning, time, and how figures are printed.
//
//   PROGRAM lat|stream SIZE COUNT WINDOW CORE CORE MODE     CORE -1: wherever the system likes
//   PROGRAM version
//
// Both ends are processes of their own. Printed are lines of a figure's name and its value, as
// `ghidrah perf` reads them (benches/perf/src/peers/built.rs).
#pragma once
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

typedef struct {
  int latency;
  size_t size, count, warm_up, window;
  int core[2];
  const char *mode;
} task;

static inline void die(const char *what) {
  perror(what);
  exit(1);
}

static inline void complain(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static inline uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static inline void pin(int core) {
  if (core < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof set, &set)) die("pinning");
}

// Reads the arguments; prints `version` and ends if that is asked for.
static inline task arguments(int count, char **words, const char *version) {
  if (count == 2 && !strcmp(words[1], "version")) {
    puts(version);
    exit(0);
  }
  if (count != 8) complain(words[0], "lat|stream SIZE COUNT WINDOW CORE CORE MODE");
  task t = {.latency = !strcmp(words[1], "lat"),
            .size = strtoull(words[2], 0, 10),
            .count = strtoull(words[3], 0, 10),
            .window = strtoull(words[4], 0, 10),
            .core = {atoi(words[5]), atoi(words[6])},
            .mode = words[7]};
  t.warm_up = t.count / 10 + 1;
  if (!t.count || !t.window) complain(words[0], "a count and a window of 0 measure nothing");
  return t;
}

// The other process: it ends with this one.
static inline pid_t other_process(void) {
  pid_t parent = getpid(), pid = fork();
  if (pid < 0) die("fork");
  if (pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) exit(1);
  }
  return pid;
}

static inline void other_has_ended(pid_t pid) {
  int status = 0;
  if (waitpid(pid, &status, 0) != pid) die("waiting for the other process");
  if (!WIFEXITED(status) || WEXITSTATUS(status)) complain("the other process", "failed");
}

// Memory that both processes see.
static inline void *shared(size_t len) {
  void *p = mmap(0, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (p == MAP_FAILED) die("mmap");
  return p;
}

static inline int ascending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

// Prints halves of `count` round trips of these nanoseconds. They are sorted.
static inline void print_latency(uint32_t *trips, size_t count) {
  qsort(trips, count, sizeof *trips, ascending);
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += trips[i];
  printf("p50_ns %.1f\np90_ns %.1f\np99_ns %.1f\np999_ns %.1f\nmax_ns %.1f\nmean_ns %.1f\n", trips[count / 2] / 2.0,
         trips[count * 9 / 10] / 2.0, trips[count * 99 / 100] / 2.0, trips[count * 999 / 1000] / 2.0,
         trips[count - 1] / 2.0, sum / count / 2);
}

// Prints what `count` messages received within `ns` come to.
static inline void print_stream(const task *t, double count, double ns) {
  printf("rate %.1f\nbandwidth %.1f\n", count / ns * 1e9, count / ns * 1e9 * t->size);
}
