// A bare UDP socket on the loopback device, one system call for each message. Modes: spinning, blocking.
#include "peer.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define DATAGRAM_MAX 65507

static int bound(int flags, struct sockaddr_in *addr) {
  int s = socket(AF_INET, SOCK_DGRAM | flags, 0), bytes = 4 << 20;
  socklen_t len = sizeof *addr;
  *addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (s < 0 || bind(s, (void *)addr, len) || getsockname(s, (void *)addr, &len)) die("socket");
  // As far as the system allows, like cl.
  setsockopt(s, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
  setsockopt(s, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  return s;
}

static void receive(int s, char *buf) {
  while (recv(s, buf, DATAGRAM_MAX, 0) < 0) {
  }
}

static void latency(const task *t, int s, int active) {
  char *buf = calloc(1, DATAGRAM_MAX);
  uint32_t *trips = malloc(t->count * sizeof *trips);
  for (size_t i = 0; i < t->warm_up + t->count; i++) {
    uint64_t start = now_ns();
    if (active && send(s, buf, t->size, 0) < 0) die("send");
    receive(s, buf);
    if (!active && send(s, buf, t->size, 0) < 0) die("send");
    if (active && i >= t->warm_up) trips[i - t->warm_up] = now_ns() - start;
  }
  if (active) print_latency(trips, t->count);
}

// One sendto for each message, as fast as they go; counted is what arrives.
static void stream(const task *t, int s, int active, _Atomic uint64_t *received, _Atomic int *stop) {
  char *buf = calloc(1, DATAGRAM_MAX);
  if (!active) {
    while (!atomic_load_explicit(stop, memory_order_relaxed))
      if (recv(s, buf, DATAGRAM_MAX, MSG_DONTWAIT) >= 0) atomic_fetch_add_explicit(received, 1, memory_order_relaxed);
    return;
  }
  uint64_t start = 0, before = 0;
  for (size_t i = 0; i < t->warm_up + t->count; i++) {
    if (i == t->warm_up) start = now_ns(), before = *received;
    if (send(s, buf, t->size, 0) < 0) die("send");
  }
  uint64_t end = now_ns(), after = *received;
  usleep(20000);  // what lies in the socket is not lost
  print_stream(t, after - before, end - start);
  printf("loss %.6f\n", 1 - (double)*received / (t->warm_up + t->count));
  *stop = 1;
}

int main(int count, char **words) {
  task t = arguments(count, words, "of the kernel");
  if (t.size > DATAGRAM_MAX) complain("udp", "a datagram holds 65507 bytes at most");
  int flags = strcmp(t.mode, "spinning") ? 0 : SOCK_NONBLOCK;
  struct sockaddr_in addr[2];
  int s[2] = {bound(flags, &addr[0]), bound(flags, &addr[1])};
  for (int i = 0; i < 2; i++)
    if (connect(s[i], (void *)&addr[!i], sizeof addr[!i])) die("connect");
  uint64_t *page = shared(4096);
  pid_t pid = other_process();
  int active = pid != 0;
  pin(t.core[!active]);
  if (t.latency)
    latency(&t, s[!active], active);
  else
    stream(&t, s[!active], active, (_Atomic uint64_t *)page, (_Atomic int *)(page + 64));
  if (active) other_has_ended(pid);
}
