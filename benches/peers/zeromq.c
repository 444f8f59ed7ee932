// ZeroMQ, following its own local_lat/remote_lat (request and reply) and local_thr/remote_thr (push and
// pull). Modes: tcp, ipc.
#include "peer.h"
#include <zmq.h>

static void need(int ok, const char *what) {
  if (!ok) complain(what, zmq_strerror(zmq_errno()));
}

static void latency(const task *t, void *socket, int active) {
  char *buf = calloc(1, t->size + 1);
  uint32_t *trips = malloc(t->count * sizeof *trips);
  for (size_t i = 0; i < t->warm_up + t->count; i++) {
    uint64_t start = now_ns();
    if (active) need(zmq_send(socket, buf, t->size, 0) >= 0, "zmq_send");
    need(zmq_recv(socket, buf, t->size, 0) == (int)t->size, "zmq_recv");
    if (!active) need(zmq_send(socket, buf, t->size, 0) >= 0, "zmq_send");
    if (active && i >= t->warm_up) trips[i - t->warm_up] = now_ns() - start;
  }
  if (active) print_latency(trips, t->count);
}

// As in local_thr the receiver measures, from the first message on.
static void stream(const task *t, void *socket, int receiving) {
  zmq_msg_t message;
  uint64_t start = 0;
  for (size_t i = 0; i < t->warm_up + t->count; i++) {
    if (receiving) {
      need(!zmq_msg_init(&message) && zmq_msg_recv(&message, socket, 0) == (int)t->size, "zmq_msg_recv");
      if (i + 1 == t->warm_up) start = now_ns();
    } else {
      need(!zmq_msg_init_size(&message, t->size), "zmq_msg_init_size");
      need(zmq_msg_send(&message, socket, 0) >= 0, "zmq_msg_send");
    }
    zmq_msg_close(&message);
  }
  if (receiving) print_stream(t, t->count, now_ns() - start);
}

int main(int count, char **words) {
  int major, minor, patch;
  char version[64], *address = shared(4096);
  zmq_version(&major, &minor, &patch);
  snprintf(version, sizeof version, "%d.%d.%d", major, minor, patch);
  task t = arguments(count, words, version);
  int pipes[2];
  char ready;
  if (pipe(pipes)) die("pipe");
  pid_t pid = other_process();
  int parent = pid != 0;
  // With application and I/O thread on one processor it streams nearly twice as fast, and answers a third slower
  // (measured on two processors). Each as is best for it.
  if (!t.latency) pin(t.core[!parent]);
  // The parent prints: it pings, or pulls.
  void *context = zmq_ctx_new();
  void *socket = zmq_socket(context, t.latency ? (parent ? ZMQ_REQ : ZMQ_REP) : (parent ? ZMQ_PULL : ZMQ_PUSH));
  need(socket != 0, "zmq_socket");
  if (!parent) {
    int ipc = !strcmp(t.mode, "ipc");
    size_t len = 4096;
    char path[64];
    snprintf(path, sizeof path, "ipc://@ghidrah-perf-%d", getpid());
    need(!zmq_bind(socket, ipc ? path : "tcp://127.0.0.1:*"), "zmq_bind");
    need(!zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, address, &len), "zmq_getsockopt");
    if (write(pipes[1], "r", 1) != 1) die("pipe");
  } else {
    close(pipes[1]);
    if (read(pipes[0], &ready, 1) != 1) complain("the other process", "did not bind");
    need(!zmq_connect(socket, address), "zmq_connect");
  }
  if (t.latency)
    latency(&t, socket, parent);
  else
    stream(&t, socket, parent);
  zmq_close(socket);
  zmq_ctx_term(context);
  if (parent) other_has_ended(pid);
}
