/* Two processes that use the provider by libfabric's interface, as MPI libraries do and beyond what those use. One test after
 * the other; what is wrong is said, and the program ends with 1. */
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rdma/fabric.h>
#include <rdma/fi_atomic.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <rdma/fi_tagged.h>

#define EXPECT(is_so, ...)                                           \
	do {                                                         \
		if (!(is_so)) {                                      \
			fprintf(stderr, "%s:%d: ", __func__, __LINE__); \
			fprintf(stderr, __VA_ARGS__);                \
			fprintf(stderr, " (%s)\n", #is_so);          \
			exit(1);                                     \
		}                                                    \
	} while (0)
#define OK(call)                                                                       \
	do {                                                                           \
		long result_ = (long)(call);                                           \
		EXPECT(result_ == 0, "%s: %ld, %s", #call, result_, fi_strerror((int)-result_)); \
	} while (0)

enum { NAME_LEN = 48, WAIT_SECONDS = 20 };

struct side {
	struct fi_info *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_av *av;
	struct fid_cq *cq;
	struct fid_cntr *written;
	struct fid_ep *ep;
	fi_addr_t peer;
	int channel; /* beside the fabric, to the other process */
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Hints as of an MPI library. */
static struct fi_info *hints(void)
{
	struct fi_info *h = fi_allocinfo();
	h->caps = FI_MSG | FI_TAGGED | FI_RMA | FI_MULTI_RECV | FI_DIRECTED_RECV | FI_SOURCE;
	h->ep_attr->type = FI_EP_RDM;
	h->domain_attr->threading = FI_THREAD_DOMAIN;
	h->domain_attr->av_type = FI_AV_TABLE;
	h->tx_attr->op_flags = FI_COMPLETION;
	h->rx_attr->op_flags = FI_COMPLETION;
	h->fabric_attr->prov_name = strdup("rcl");
	return h;
}

static struct fi_info *getinfo(struct fi_info *h, int expected)
{
	struct fi_info *info = NULL;
	int result = fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, h, &info);
	EXPECT(result == expected, "fi_getinfo: %d, %s", result, fi_strerror(-result));
	return info;
}

static void open_side(struct side *s, int channel)
{
	struct fi_info *h = hints();
	struct fi_av_attr av = { .type = FI_AV_TABLE };
	struct fi_cq_attr cq = { .format = FI_CQ_FORMAT_TAGGED };
	struct fi_cntr_attr cntr = { 0 };
	memset(s, 0, sizeof *s);
	s->channel = channel;
	s->info = getinfo(h, 0);
	fi_freeinfo(h);
	OK(fi_fabric(s->info->fabric_attr, &s->fabric, NULL));
	OK(fi_domain(s->fabric, s->info, &s->domain, NULL));
	OK(fi_av_open(s->domain, &av, &s->av, NULL));
	OK(fi_cq_open(s->domain, &cq, &s->cq, NULL));
	OK(fi_cntr_open(s->domain, &cntr, &s->written, NULL));
	OK(fi_endpoint(s->domain, s->info, &s->ep, NULL));
	EXPECT(fi_enable(s->ep) == -FI_ENOCQ, "an endpoint without a queue is enabled");
	OK(fi_ep_bind(s->ep, &s->cq->fid, FI_SEND | FI_RECV | FI_SELECTIVE_COMPLETION));
	EXPECT(fi_enable(s->ep) == -FI_ENOAV, "an endpoint without addresses is enabled");
	OK(fi_ep_bind(s->ep, &s->av->fid, 0));
	OK(fi_ep_bind(s->ep, &s->written->fid, FI_WRITE));
	OK(fi_enable(s->ep));
}

static void close_side(struct side *s)
{
	EXPECT(fi_close(&s->cq->fid) == -FI_EBUSY, "a queue in use is closed");
	EXPECT(fi_close(&s->domain->fid) == -FI_EBUSY, "a domain in use is closed");
	OK(fi_close(&s->ep->fid));
	OK(fi_close(&s->cq->fid));
	OK(fi_close(&s->av->fid));
	OK(fi_close(&s->written->fid));
	OK(fi_close(&s->domain->fid));
	OK(fi_close(&s->fabric->fid));
	fi_freeinfo(s->info);
}

static void say(struct side *s, const void *bytes, size_t len)
{
	EXPECT(write(s->channel, bytes, len) == (ssize_t)len, "the other process is gone");
}

static void progress(struct side *s)
{
	EXPECT(fi_cq_read(s->cq, NULL, 0) == -FI_EAGAIN || 1, "reading nothing");
}

/* Waits for the other process, while the endpoint goes on. */
static void hear(struct side *s, void *bytes, size_t len)
{
	struct pollfd p = { .fd = s->channel, .events = POLLIN };
	double end = now() + WAIT_SECONDS;
	while (poll(&p, 1, 1) == 0) {
		EXPECT(now() < end, "the other process says nothing");
		progress(s);
	}
	EXPECT(recv(s->channel, bytes, len, MSG_WAITALL) == (ssize_t)len, "the other process is gone");
}

static void meet(struct side *s)
{
	char c = 'm';
	say(s, &c, 1);
	hear(s, &c, 1);
}

static void name(struct side *s, char bytes[NAME_LEN])
{
	size_t len = 0;
	EXPECT(fi_getname(&s->ep->fid, NULL, &len) == -FI_ETOOSMALL && len == NAME_LEN, "%zu bytes", len);
	OK(fi_getname(&s->ep->fid, bytes, &len));
}

static void introduce(struct side *s)
{
	char mine[NAME_LEN], theirs[NAME_LEN], again[NAME_LEN], text[128];
	size_t len = sizeof again;
	name(s, mine);
	say(s, mine, sizeof mine);
	hear(s, theirs, sizeof theirs);
	EXPECT(fi_av_insert(s->av, theirs, 1, &s->peer, 0, NULL) == 1, "insert");
	OK(fi_av_lookup(s->av, s->peer, again, &len));
	EXPECT(len == NAME_LEN && !memcmp(theirs, again, len), "another address is looked up");
	len = sizeof text;
	fi_av_straddr(s->av, theirs, text, &len);
	EXPECT(strstr(text, " at ") && len <= sizeof text, "an address reads %s", text);
	EXPECT(fi_av_lookup(s->av, 99, again, &len) == -FI_EINVAL, "an address that nobody inserted");
	memset(again, 7, sizeof again);
	fi_addr_t none;
	EXPECT(fi_av_insert(s->av, again, 1, &none, 0, NULL) == 0 && none == FI_ADDR_NOTAVAIL, "no address");
}

#define AGAIN(s, call)                                                       \
	do {                                                                 \
		double end_ = now() + WAIT_SECONDS;                          \
		long result_;                                                \
		while ((result_ = (long)(call)) == -FI_EAGAIN) {             \
			EXPECT(now() < end_, "%s: nothing but -FI_EAGAIN", #call); \
			progress(s);                                         \
		}                                                            \
		EXPECT(result_ == 0, "%s: %ld", #call, result_);             \
	} while (0)

/* The next completion: 0, or its error, which is in e. */
static int next(struct side *s, struct fi_cq_err_entry *e, fi_addr_t *source)
{
	struct fi_cq_tagged_entry t;
	double end = now() + WAIT_SECONDS;
	memset(e, 0, sizeof *e);
	for (;;) {
		ssize_t n = fi_cq_readfrom(s->cq, &t, 1, source);
		if (n == 1) {
			e->op_context = t.op_context, e->flags = t.flags, e->len = t.len;
			e->buf = t.buf, e->data = t.data, e->tag = t.tag;
			return 0;
		}
		if (n == -FI_EAVAIL) {
			EXPECT(fi_cq_readerr(s->cq, e, 0) == 1 && e->err > 0, "no error after all");
			return e->err;
		}
		EXPECT(n == -FI_EAGAIN, "fi_cq_read: %zd", n);
		EXPECT(now() < end, "no completion");
	}
}

static int done(struct side *s, void *context)
{
	struct fi_cq_err_entry e;
	int error = next(s, &e, NULL);
	EXPECT(e.op_context == context, "another operation is complete");
	return error;
}

static void fill(unsigned char *bytes, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (unsigned char)(seed + i + (i >> 8) * 31);
}

static int is_filled(const unsigned char *bytes, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++)
		if (bytes[i] != (unsigned char)(seed + i + (i >> 8) * 31))
			return 0;
	return 1;
}

/* What is not offered is refused, and what is offered is told. */
static void offers(void)
{
	struct fi_info *h, *info;
#define REFUSED(what)                         \
	do {                                  \
		h = hints();                  \
		what;                         \
		getinfo(h, -FI_ENODATA);      \
		fi_freeinfo(h);               \
	} while (0)
	REFUSED(h->ep_attr->type = FI_EP_MSG);
	REFUSED(h->ep_attr->type = FI_EP_DGRAM);
	REFUSED(h->caps |= FI_ATOMIC);
	REFUSED(h->caps |= FI_MULTICAST);
	REFUSED(h->addr_format = FI_SOCKADDR_IN);
	REFUSED(h->tx_attr->inject_size = 1 << 20);
	REFUSED(h->tx_attr->iov_limit = 100);
	REFUSED(h->tx_attr->msg_order = FI_ORDER_RAW);
	REFUSED(h->tx_attr->op_flags = FI_COMMIT_COMPLETE);
	REFUSED(h->rx_attr->comp_order = FI_ORDER_STRICT);
	REFUSED(h->ep_attr->max_msg_size = SIZE_MAX);
	REFUSED(h->ep_attr->tx_ctx_cnt = 2);
	REFUSED(h->domain_attr->data_progress = FI_PROGRESS_AUTO);
	REFUSED(h->domain_attr->cq_data_size = 16);
	REFUSED(h->domain_attr->name = strdup("eth0"));
	h = hints();
	h->caps = FI_MSG;
	info = getinfo(h, 0);
	EXPECT((info->caps & (FI_MSG | FI_SEND | FI_RECV)) == (FI_MSG | FI_SEND | FI_RECV), "caps");
	EXPECT(!(info->caps & (FI_TAGGED | FI_DIRECTED_RECV)), "more than was asked for");
	EXPECT(info->mode == 0 && info->domain_attr->mr_mode == 0, "something is asked of the application");
	EXPECT(info->domain_attr->threading == FI_THREAD_DOMAIN, "threading");
	EXPECT(!strcmp(info->fabric_attr->prov_name, "rcl"), "the provider is called %s", info->fabric_attr->prov_name);
	EXPECT(info->ep_attr->max_msg_size >= 1ULL << 40, "short messages only");
	fi_freeinfo(info);
	fi_freeinfo(h);
}

/* Messages without tags, data beside them, where they come from. */
static void messages(struct side *s, int first)
{
	char buf[100] = "";
	struct fi_cq_err_entry e;
	fi_addr_t source;
	int context;
	if (first) {
		AGAIN(s, fi_injectdata(s->ep, "hello", 6, 4711, s->peer));
		AGAIN(s, fi_senddata(s->ep, "world", 6, NULL, 4712, s->peer, &context));
		EXPECT(next(s, &e, NULL) == 0 && e.op_context == &context, "one completion, of what was not injected");
		EXPECT(e.flags == (FI_SEND | FI_MSG), "flags %llx", (unsigned long long)e.flags);
	} else {
		for (int i = 0; i < 2; i++) {
			OK(fi_recv(s->ep, buf, sizeof buf, NULL, i ? s->peer : FI_ADDR_UNSPEC, &context));
			EXPECT(next(s, &e, &source) == 0 && e.op_context == &context, "a message");
			EXPECT(e.flags == (FI_RECV | FI_MSG | FI_REMOTE_CQ_DATA), "flags %llx", (unsigned long long)e.flags);
			EXPECT(e.data == 4711U + (unsigned)i && e.len == 6 && source == s->peer, "what came with it");
			EXPECT(!strcmp(buf, i ? "world" : "hello"), "%s", buf);
		}
	}
	meet(s);
}

/* Tags, order, truncation, cancelling, and the wrong source. */
static void tags(struct side *s, int first)
{
	static unsigned char buf[200000], other[200000];
	struct fi_cq_err_entry e;
	size_t lengths[] = { 0, 1000, 10000, 200000 };
	int contexts[8];
	if (first) {
		meet(s);
		for (unsigned i = 0; i < 4; i++) {
			fill(buf, lengths[i], i);
			AGAIN(s, fi_tsend(s->ep, buf, lengths[i], NULL, s->peer, 77, &contexts[0]));
			EXPECT(done(s, &contexts[0]) == 0, "sent");
		}
		fill(buf, sizeof buf, 9);
		AGAIN(s, fi_tsend(s->ep, buf, sizeof buf, NULL, s->peer, 78, &contexts[0]));
		EXPECT(done(s, &contexts[0]) == 0, "sent what is truncated");
	} else {
		OK(fi_trecv(s->ep, other, 10, NULL, s->peer, 1, 0, &contexts[5]));
		OK(fi_trecv(s->ep, other, 10, NULL, s->peer, 0x8000000000000000, ~0xfULL << 60, &contexts[6]));
		meet(s);
		for (unsigned i = 0; i < 4; i++) {
			memset(buf, 0, sizeof buf);
			OK(fi_trecv(s->ep, buf, sizeof buf, NULL, i % 2 ? s->peer : FI_ADDR_UNSPEC, i % 2 ? 77 : 76, i % 2 ? 0 : 1,
				    &contexts[0]));
			EXPECT(next(s, &e, NULL) == 0 && e.op_context == &contexts[0], "message %u", i);
			EXPECT(e.tag == 77 && e.len == lengths[i] && is_filled(buf, e.len, i), "contents of %u", i);
		}
		OK(fi_trecv(s->ep, other, 100, NULL, s->peer, 78, 0, &contexts[0]));
		EXPECT(next(s, &e, NULL) == FI_ETRUNC && e.tag == 78, "truncated");
		EXPECT(e.len == 100 && e.olen == sizeof buf - 100 && is_filled(other, 100, 9), "what fits");
		OK(fi_cancel(&s->ep->fid, &contexts[6]));
		EXPECT(done(s, &contexts[6]) == FI_ECANCELED, "cancelled");
		OK(fi_cancel(&s->ep->fid, &contexts[7]));
		OK(fi_cancel(&s->ep->fid, &contexts[5]));
		EXPECT(done(s, &contexts[5]) == FI_ECANCELED, "cancelled");
	}
	meet(s);
}

/* Messages are looked for, kept aside, taken, thrown away. */
static void probes(struct side *s, int first)
{
	static unsigned char buf[300000];
	size_t lengths[] = { 10, 300000 };
	int context;
	for (unsigned i = 0; i < 2; i++) {
		size_t len = lengths[i];
		if (first) {
			fill(buf, len, i);
			AGAIN(s, fi_tsend(s->ep, buf, len, NULL, s->peer, 5, &context));
			EXPECT(done(s, &context) == 0, "sent");
			AGAIN(s, fi_tsend(s->ep, buf, len, NULL, s->peer, 6, &context));
			EXPECT(done(s, &context) == 0, "thrown away, which is an end like any other");
		} else {
			struct iovec iov = { buf, sizeof buf };
			struct fi_msg_tagged m = { &iov, NULL, 1, s->peer, 99, 0, &context, 0 };
			struct fi_cq_err_entry e;
			OK(fi_trecvmsg(s->ep, &m, FI_PEEK | FI_COMPLETION));
			EXPECT(next(s, &e, NULL) == FI_ENOMSG && e.op_context == &context, "no message");
			EXPECT(fi_trecvmsg(s->ep, &m, FI_CLAIM) == -FI_EINVAL, "nothing was kept aside");
			m.tag = 5;
			double end = now() + WAIT_SECONDS;
			do {
				OK(fi_trecvmsg(s->ep, &m, FI_PEEK | FI_COMPLETION));
				EXPECT(now() < end, "no message found");
			} while (next(s, &e, NULL) == FI_ENOMSG);
			EXPECT(e.len == len && e.tag == 5, "found");
			OK(fi_trecvmsg(s->ep, &m, FI_PEEK | FI_CLAIM | FI_COMPLETION));
			EXPECT(done(s, &context) == 0, "kept aside");
			OK(fi_trecvmsg(s->ep, &m, FI_PEEK | FI_COMPLETION));
			EXPECT(done(s, &context) == FI_ENOMSG, "it is aside");
			memset(buf, 0, sizeof buf);
			OK(fi_trecvmsg(s->ep, &m, FI_CLAIM | FI_COMPLETION));
			EXPECT(next(s, &e, NULL) == 0 && e.len == len && is_filled(buf, len, i), "taken");
			m.tag = 6;
			do {
				OK(fi_trecvmsg(s->ep, &m, FI_PEEK | FI_DISCARD | FI_COMPLETION));
				EXPECT(now() < end, "no message found");
			} while (done(s, &context) == FI_ENOMSG);
			OK(fi_trecvmsg(s->ep, &m, FI_PEEK | FI_COMPLETION));
			EXPECT(done(s, &context) == FI_ENOMSG, "it is thrown away");
		}
		meet(s);
	}
}

/* One buffer for many messages. */
static void many(struct side *s, int first)
{
	static unsigned char buf[100000];
	struct fi_cq_err_entry e;
	int context;
	if (first) {
		meet(s);
		for (unsigned i = 0; i < 4; i++) {
			/* The third is long enough to be copied by the receiver, or to be announced. */
			size_t len = i == 2 ? 80000 : 5000;
			fill(buf, len, i);
			AGAIN(s, fi_send(s->ep, buf, len, NULL, s->peer, &context));
			EXPECT(done(s, &context) == 0, "sent");
		}
	} else {
		struct iovec iov = { buf, sizeof buf };
		struct fi_msg m = { &iov, NULL, 1, FI_ADDR_UNSPEC, &context, 0 };
		size_t min = 10001, len = sizeof min;
		OK(fi_setopt(&s->ep->fid, FI_OPT_ENDPOINT, FI_OPT_MIN_MULTI_RECV, &min, sizeof min));
		min = 0;
		OK(fi_getopt(&s->ep->fid, FI_OPT_ENDPOINT, FI_OPT_MIN_MULTI_RECV, &min, &len));
		EXPECT(min == 10001, "the option is %zu", min);
		OK(fi_recvmsg(s->ep, &m, FI_MULTI_RECV | FI_COMPLETION));
		meet(s);
		size_t at = 0;
		for (unsigned i = 0; i < 3; i++) {
			EXPECT(next(s, &e, NULL) == 0 && e.op_context == &context, "message %u", i);
			EXPECT(e.buf == buf + at && is_filled(e.buf, e.len, i), "contents of %u", i);
			EXPECT(!(e.flags & FI_MULTI_RECV) == (i < 2), "the buffer is given back with the third");
			at += e.len;
		}
		OK(fi_recv(s->ep, buf, 5000, NULL, s->peer, &context));
		EXPECT(next(s, &e, NULL) == 0 && is_filled(buf, 5000, 3), "the fourth goes elsewhere");
		OK(fi_recvmsg(s->ep, &m, FI_MULTI_RECV | FI_COMPLETION));
		OK(fi_cancel(&s->ep->fid, &context));
		EXPECT(next(s, &e, NULL) == FI_ECANCELED && (e.flags & FI_MULTI_RECV), "given back");
	}
	meet(s);
}

/* A completion of delivery, memory in pieces, and flags that nobody knows. */
static void pieces(struct side *s, int first)
{
	static unsigned char buf[1000000];
	int context;
	for (size_t len = 400; len <= sizeof buf; len *= 50) {
		struct iovec iov[4];
		for (size_t i = 0; i < 4; i++)
			iov[i] = (struct iovec){ buf + i * len / 4, len / 4 };
		struct fi_msg_tagged m = { iov, NULL, 4, s->peer, 3, 0, &context, 0 };
		if (first) {
			fill(buf, len, 1);
			EXPECT(fi_tsendmsg(s->ep, &m, 1ULL << 50) == -FI_EBADFLAGS, "a flag that nobody knows");
			EXPECT(fi_tsend(s->ep, buf, 1, NULL, 99, 3, &context) == -FI_EADDRNOTAVAIL, "nobody");
			AGAIN(s, fi_tsendmsg(s->ep, &m, FI_COMPLETION | FI_DELIVERY_COMPLETE));
			EXPECT(done(s, &context) == 0, "delivered");
		} else {
			/* In other pieces. */
			iov[0].iov_len -= 100, iov[1].iov_base = (char *)iov[1].iov_base - 100, iov[1].iov_len += 100;
			memset(buf, 0, len);
			OK(fi_trecvmsg(s->ep, &m, FI_COMPLETION));
			EXPECT(done(s, &context) == 0 && is_filled(buf, len, 1), "%zu bytes in pieces", len);
		}
		meet(s);
	}
}

/* The peer's memory is written and read; what is not allowed is refused. */
static void remote(struct side *s, int first)
{
	enum { LEN = 500000 };
	static unsigned char memory[LEN], buf[LEN];
	int context;
	if (first) {
		meet(s);
		uint64_t before = fi_cntr_read(s->written);
		size_t lengths[] = { 1, 3000, 50000, LEN };
		for (unsigned i = 0; i < 4; i++) {
			size_t len = lengths[i];
			fill(buf, len, i);
			AGAIN(s, fi_write(s->ep, buf, len, NULL, s->peer, LEN - len, 42, &context));
			EXPECT(done(s, &context) == 0, "written");
			memset(buf, 0, len);
			AGAIN(s, fi_read(s->ep, buf, len, NULL, s->peer, LEN - len, 42, &context));
			EXPECT(done(s, &context) == 0 && is_filled(buf, len, i), "%zu bytes read", len);
		}
		AGAIN(s, fi_inject_write(s->ep, "!", 1, s->peer, 0, 42));
		OK(fi_cntr_wait(s->written, before + 5, WAIT_SECONDS * 1000));
		size_t refused[] = { 8, LEN / 2 };
		for (int i = 0; i < 2; i++) {
			size_t len = refused[i];
			AGAIN(s, fi_write(s->ep, buf, len, NULL, s->peer, LEN - len + 1, 42, &context));
			EXPECT(done(s, &context) != 0, "written beyond the end");
			AGAIN(s, fi_read(s->ep, buf, len, NULL, s->peer, UINT64_MAX, 42, &context));
			EXPECT(done(s, &context) == FI_EINVAL, "read beyond the end");
			AGAIN(s, fi_read(s->ep, buf, len, NULL, s->peer, 0, 41, &context));
			EXPECT(done(s, &context) == FI_ENOKEY, "read by a key that nobody has");
			AGAIN(s, fi_write(s->ep, buf, len, NULL, s->peer, 0, 43, &context));
			EXPECT(done(s, &context) == FI_EACCES, "written what is to be read");
		}
		EXPECT(fi_cntr_readerr(s->written) == 4, "errors are counted");
		EXPECT(fi_atomic(s->ep, buf, 1, NULL, s->peer, 0, 42, FI_UINT8, FI_SUM, &context) == -FI_ENOSYS, "atomics");
		meet(s);
	} else {
		struct fid_mr *mr, *other;
		OK(fi_mr_reg(s->domain, memory, LEN, FI_REMOTE_READ | FI_REMOTE_WRITE, 0, 42, 0, &mr, NULL));
		OK(fi_mr_reg(s->domain, memory, LEN, FI_REMOTE_READ, 0, 43, 0, &other, NULL));
		EXPECT(fi_mr_reg(s->domain, memory, 1, FI_REMOTE_READ, 0, 42, 0, &mr, NULL) == -FI_ENOKEY, "a key in use");
		EXPECT(fi_mr_key(mr) == 42, "the key");
		meet(s);
		meet(s);
		EXPECT(memory[0] == '!' && memory[1] == (unsigned char)(3 + 1), "what was written");
		OK(fi_close(&other->fid));
		OK(fi_close(&mr->fid));
	}
}

/* What an endpoint has accepted arrives, though it is closed at once and its process ends. */
static void linger(int channel, int first)
{
	struct side s;
	open_side(&s, channel);
	introduce(&s);
	if (first) {
		for (int i = 0; i < 1000; i++)
			AGAIN(&s, fi_tinject(s.ep, &i, sizeof i, s.peer, 8));
		meet(&s);
	} else {
		meet(&s);
		/* It does nothing for a while, as a program that computes. */
		usleep(300000);
		for (int i = 0; i < 1000; i++) {
			int value = -1, context;
			OK(fi_trecv(s.ep, &value, sizeof value, NULL, s.peer, 8, 0, &context));
			EXPECT(done(&s, &context) == 0 && value == i, "%d instead of %d", value, i);
		}
	}
	close_side(&s);
}

/* A process that is killed is an error for who waits for it, and for who sends to it. */
static void death(int channel, int first)
{
	struct side s;
	static unsigned char buf[100000];
	int receive, send;
	open_side(&s, channel);
	introduce(&s);
	if (first) {
		AGAIN(&s, fi_tinject(s.ep, "last", 5, s.peer, 1));
		progress(&s);
		meet(&s);
		raise(SIGKILL);
	}
	char last[5];
	OK(fi_trecv(s.ep, last, sizeof last, NULL, s.peer, 1, 0, &receive));
	EXPECT(done(&s, &receive) == 0 && !strcmp(last, "last"), "what it said before");
	OK(fi_trecv(s.ep, buf, sizeof buf, NULL, s.peer, 2, 0, &receive));
	/* Too long to be sent before the other side has a place for it. */
	AGAIN(&s, fi_tsend(s.ep, buf, sizeof buf, NULL, s.peer, 2, &send));
	meet(&s);
	double started = now();
	struct fi_cq_err_entry e;
	for (int i = 0; i < 2; i++)
		EXPECT(next(&s, &e, NULL) == FI_ECONNRESET && (e.op_context == &receive || e.op_context == &send), "death");
	EXPECT(now() - started < WAIT_SECONDS - 5, "after %f s", now() - started);
	ssize_t result;
	while ((result = fi_tinject(s.ep, "x", 1, s.peer, 1)) == -FI_EAGAIN)
		progress(&s);
	EXPECT(result == -FI_ECONNRESET, "sending to the dead: %zd", result);
	close_side(&s);
}

/* Who knows where an endpoint is, and what it is called, but not its secret, cannot send to it; nor can who sends
 * whatever to its socket. */
static void stranger(int channel, int first)
{
	struct side s;
	char theirs[NAME_LEN], mine[NAME_LEN];
	open_side(&s, channel);
	name(&s, mine);
	say(&s, mine, sizeof mine);
	hear(&s, theirs, sizeof theirs);
	if (first) {
		uint16_t port;
		memcpy(&port, theirs + 4, sizeof port);
		struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
		memcpy(&to.sin_addr, theirs + 16 + 12, 4);
		int raw = socket(AF_INET, SOCK_DGRAM, 0);
		unsigned char noise[600];
		for (unsigned i = 0; i < 1000; i++) {
			fill(noise, sizeof noise, i * 2654435761u >> 13);
			sendto(raw, noise, i % sizeof noise, 0, (struct sockaddr *)&to, sizeof to);
		}
		close(raw);
		theirs[NAME_LEN - 1] ^= 1;
		EXPECT(fi_av_insert(s.av, theirs, 1, &s.peer, 0, NULL) == 1, "insert");
		/* It cannot be seen from here that the other does not listen, until it ends the connection. */
		double end = now() + WAIT_SECONDS;
		ssize_t result;
		while ((result = fi_tinject(s.ep, "evil", 5, s.peer, 1)) == 0 || result == -FI_EAGAIN) {
			EXPECT(now() < end, "a stranger is listened to");
			progress(&s);
		}
		EXPECT(result == -FI_ECONNRESET, "%zd", result);
		meet(&s);
	} else {
		int context;
		char buf[5];
		OK(fi_trecv(s.ep, buf, sizeof buf, NULL, FI_ADDR_UNSPEC, 0, ~0ULL, &context));
		meet(&s);
		struct fi_cq_tagged_entry t;
		EXPECT(fi_cq_read(s.cq, &t, 1) == -FI_EAGAIN, "a stranger's message");
		/* To itself it may send. */
		fi_addr_t self;
		EXPECT(fi_av_insert(s.av, mine, 1, &self, 0, NULL) == 1, "insert");
		AGAIN(&s, fi_tinject(s.ep, "mine", 5, self, 1));
		EXPECT(done(&s, &context) == 0 && !strcmp(buf, "mine"), "a message to itself");
	}
	close_side(&s);
}

static void all(int channel, int first)
{
	struct side s;
	open_side(&s, channel);
	introduce(&s);
	messages(&s, first);
	tags(&s, first);
	probes(&s, first);
	many(&s, first);
	pieces(&s, first);
	remote(&s, first);
	/* And the other way round. */
	messages(&s, !first);
	tags(&s, !first);
	remote(&s, !first);
	close_side(&s);
}

static void in_two(const char *what, void (*test)(int, int), int first_dies)
{
	int channels[2], status;
	double started = now();
	EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, channels) == 0, "socketpair");
	pid_t child = fork();
	if (child == 0) {
		close(channels[1]);
		/* Nothing that is wrong lasts for ever. */
		alarm(4 * WAIT_SECONDS);
		test(channels[0], 1);
		exit(0);
	}
	close(channels[0]);
	alarm(4 * WAIT_SECONDS);
	pid_t other = fork();
	if (other == 0) {
		alarm(4 * WAIT_SECONDS);
		test(channels[1], 0);
		exit(0);
	}
	close(channels[1]);
	EXPECT(waitpid(child, &status, 0) == child, "waitpid");
	EXPECT(first_dies ? WIFSIGNALED(status) : status == 0, "%s: the first process: %x", what, status);
	EXPECT(waitpid(other, &status, 0) == other && status == 0, "%s: the second process: %x", what, status);
	printf("%s: OK, %.2f s\n", what, now() - started);
	fflush(stdout);
}

int main(void)
{
	printf("libfabric %u.%u\n", FI_MAJOR(fi_version()), FI_MINOR(fi_version()));
	fflush(stdout);
	offers();
	in_two("operations", all, 0);
	in_two("linger", linger, 0);
	in_two("stranger", stranger, 0);
	in_two("death", death, 1);
	puts("all OK");
	return 0;
}
