// libfabric: tagged messages of a reliable-datagram endpoint, spinning on its completion queue, following
// fi_rdm_tagged_pingpong and fi_rdm_tagged_bw of its fabtests. Modes: tcp, shm.
#include "peer.h"
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_tagged.h>

#define TAG 7
#define WINDOW_MAX 4096

static struct fid_ep *ep;
static struct fid_cq *cq;
static fi_addr_t other;
static void *desc;
static char *region;
static struct fi_context contexts[2 * WINDOW_MAX];

static void need(long result, const char *what) {
  if (result < 0) complain(what, fi_strerror(-result));
}

// One completion, if there is one.
static int reap(void) {
  struct fi_cq_tagged_entry entry;
  long n = fi_cq_read(cq, &entry, 1);
  if (n == -FI_EAVAIL) {
    struct fi_cq_err_entry error = {0};
    fi_cq_readerr(cq, &error, 0);
    need(-error.err, "completion");
  }
  if (n != -FI_EAGAIN) need(n, "fi_cq_read");
  return n > 0;
}

// Buffers are reused by slot, as the tools reuse theirs.
static void post_send(char *buf, size_t len, int slot) {
  long r;
  while ((r = fi_tsend(ep, buf, len, desc, other, TAG, &contexts[slot])) == -FI_EAGAIN) fi_cq_read(cq, 0, 0);
  need(r, "fi_tsend");
}

static void post_receive(char *buf, size_t len, int slot) {
  long r;
  while ((r = fi_trecv(ep, buf, len, desc, other, TAG, 0, &contexts[slot])) == -FI_EAGAIN) fi_cq_read(cq, 0, 0);
  need(r, "fi_trecv");
}

static void wait_for(int completions) {
  while (completions) completions -= reap();
}

// Small messages are injected, which needs no completion, as the tools do.
static void send_one(char *buf, const task *t, size_t inject_max) {
  if (t->size > inject_max) {
    post_send(buf, t->size, 0);
    wait_for(1);
    return;
  }
  long r;
  while ((r = fi_tinject(ep, buf, t->size, other, TAG)) == -FI_EAGAIN) fi_cq_read(cq, 0, 0);
  need(r, "fi_tinject");
}

static void latency(const task *t, int active, size_t inject_max) {
  uint32_t *trips = malloc(t->count * sizeof *trips);
  char *out = region, *in = region + t->size;
  post_receive(in, t->size, 1);
  for (size_t i = 0; i < t->warm_up + t->count; i++) {
    uint64_t start = now_ns();
    if (active) send_one(out, t, inject_max);
    wait_for(1);
    post_receive(in, t->size, 1);
    if (!active) send_one(out, t, inject_max);
    if (active && i >= t->warm_up) trips[i - t->warm_up] = now_ns() - start;
  }
  if (active) print_latency(trips, t->count);
}

// Windows of messages, each answered by one message when it has arrived, as in fi_rdm_tagged_bw.
static void stream(const task *t, int active) {
  size_t window = t->window > WINDOW_MAX ? WINDOW_MAX : t->window;
  size_t windows = t->count / window + 1, warm_up = windows / 10 + 1;
  char *answer = region + window * t->size;
  uint64_t start = 0;
  for (size_t i = 0; i < warm_up + windows; i++) {
    if (i == warm_up) start = now_ns();
    if (active) post_receive(answer, 4, 0);
    for (size_t j = 0; j < window; j++) {
      char *buf = region + j * t->size;
      if (active)
        post_send(buf, t->size, 1 + j);
      else
        post_receive(buf, t->size, 1 + j);
    }
    wait_for(window + active);
    if (!active) {
      post_send(answer, 4, 0);
      wait_for(1);
    }
  }
  if (active) print_stream(t, windows * window, now_ns() - start);
}

static void open_endpoint(const task *t, struct fi_info **chosen) {
  struct fi_info *hints = fi_allocinfo();
  hints->caps = FI_TAGGED;
  hints->mode = FI_CONTEXT;
  hints->ep_attr->type = FI_EP_RDM;
  hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
  hints->domain_attr->threading = FI_THREAD_DOMAIN;
  int shm = !strcmp(t->mode, "shm");
  hints->fabric_attr->prov_name = strdup(shm ? "shm" : "tcp;ofi_rxm");
  need(fi_getinfo(FI_VERSION(1, 15), shm ? 0 : "127.0.0.1", 0, shm ? 0 : FI_SOURCE, hints, chosen), "fi_getinfo");
  struct fi_info *info = *chosen;
  struct fid_fabric *fabric;
  struct fid_domain *domain;
  struct fid_av *av;
  struct fi_cq_attr cq_attr = {.format = FI_CQ_FORMAT_TAGGED, .size = 2 * WINDOW_MAX};
  struct fi_av_attr av_attr = {.type = FI_AV_TABLE, .count = 2};
  need(fi_fabric(info->fabric_attr, &fabric, 0), "fi_fabric");
  need(fi_domain(fabric, info, &domain, 0), "fi_domain");
  need(fi_cq_open(domain, &cq_attr, &cq, 0), "fi_cq_open");
  need(fi_av_open(domain, &av_attr, &av, 0), "fi_av_open");
  need(fi_endpoint(domain, info, &ep, 0), "fi_endpoint");
  need(fi_ep_bind(ep, &cq->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind");
  need(fi_ep_bind(ep, &av->fid, 0), "fi_ep_bind");
  need(fi_enable(ep), "fi_enable");
  size_t window = t->latency ? 2 : (t->window > WINDOW_MAX ? WINDOW_MAX : t->window) + 1, len = window * t->size + 64;
  region = aligned_alloc(4096, (len + 4095) / 4096 * 4096);
  memset(region, 1, len);
  if (info->domain_attr->mr_mode & FI_MR_LOCAL) {
    struct fid_mr *mr;
    need(fi_mr_reg(domain, region, len, FI_SEND | FI_RECV, 0, 0, 0, &mr, 0), "fi_mr_reg");
    desc = fi_mr_desc(mr);
  }
  other = (fi_addr_t)(uintptr_t)av;  // until it is known
}

// Both ends tell each other their address through `pages`, half a page each.
static void introduce(char *pages, int active) {
  struct fid_av *av = (struct fid_av *)(uintptr_t)other;
  volatile char *mine = pages + 2048 * active, *theirs = pages + 2048 * !active;
  size_t len = 2040;
  need(fi_getname(&ep->fid, (void *)(mine + 8), &len), "fi_getname");
  __sync_synchronize();
  *(volatile uint64_t *)mine = 1;
  while (!*(volatile uint64_t *)theirs) usleep(100);
  __sync_synchronize();
  if (fi_av_insert(av, (void *)(theirs + 8), 1, &other, 0, 0) != 1) complain("fi_av_insert", "the address is refused");
}

int main(int count, char **words) {
  char version[32];
  uint32_t v = fi_version();
  snprintf(version, sizeof version, "%u.%u", FI_MAJOR(v), FI_MINOR(v));
  task t = arguments(count, words, version);
  char *pages = shared(4096);
  pid_t pid = other_process();
  int active = pid != 0;
  pin(t.core[!active]);
  struct fi_info *info;
  open_endpoint(&t, &info);
  introduce(pages, active);
  if (t.latency)
    latency(&t, active, info->tx_attr->inject_size);
  else
    stream(&t, active);
  if (active) {
    fflush(stdout);
    // What it sent last may still be under way to us, and ours to it.
    for (int i = 0; i < 1000; i++) fi_cq_read(cq, 0, 0);
    other_has_ended(pid);
  } else {
    for (int i = 0; i < 1000; i++) fi_cq_read(cq, 0, 0), usleep(10);
  }
}
