// What one system call for datagrams to many destinations gains: `many [DESTINATIONS] [BYTES]`, over loopback.
// One sender, to sockets that are emptied between the timed parts. By turns: sendmsg for each; sendmmsg for all; one
// io_uring_enter for all; send on a connected socket for each, which spares the look-up of the route; both of these, one
// io_uring_enter for all on connected sockets. Printed: time for each datagram, and the median of the rounds' ratios to
// sendmsg.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 31, MAX = 128, WAYS = 5 };
static const char *names[WAYS] = {"sendmsg", "sendmmsg", "io_uring", "connected", "both"};
static int from, to[MAX], connected[MAX], ring, n = 3;
static struct sockaddr_in addresses[MAX];
static struct iovec parts[MAX];
static struct mmsghdr messages[MAX];
static unsigned *tail, *mask, *array, *head, *done_tail;
static struct io_uring_sqe *sqes;

static void check(long result, const char *what) {
    if (result < 0) perror(what), exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void open_ring(void) {
    struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    check(ring = syscall(__NR_io_uring_setup, MAX, &p), "io_uring_setup");
    char *rings = mmap(0, p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe), PROT_READ | PROT_WRITE,
                       MAP_SHARED, ring, IORING_OFF_SQ_RING);
    sqes = mmap(0, p.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
    if (rings == MAP_FAILED || sqes == MAP_FAILED) perror("mmap"), exit(1);
    tail = (unsigned *)(rings + p.sq_off.tail);
    mask = (unsigned *)(rings + p.sq_off.ring_mask);
    array = (unsigned *)(rings + p.sq_off.array);
    head = (unsigned *)(rings + p.cq_off.head);
    done_tail = (unsigned *)(rings + p.cq_off.tail);
    int files[MAX + 1] = {from};
    memcpy(files + 1, connected, n * sizeof *files);
    check(syscall(__NR_io_uring_register, ring, IORING_REGISTER_FILES, files, n + 1), "register");
}

static void send_all(int way) {
    switch (way) {
    case 0:
        for (int i = 0; i < n; i++) check(sendmsg(from, &messages[i].msg_hdr, 0), "sendmsg");
        break;
    case 1: {
        int sent = sendmmsg(from, messages, n, 0);
        if (sent != n) perror("sendmmsg"), exit(1);
        break;
    }
    case 2:
    case 4: {
        for (int i = 0; i < n; i++) {
            unsigned at = (*tail + i) & *mask;
            sqes[at] = (struct io_uring_sqe){.opcode = IORING_OP_SENDMSG, .flags = IOSQE_FIXED_FILE,
                                             .addr = (unsigned long)&messages[i].msg_hdr, .len = 1};
            if (way == 4)
                sqes[at] = (struct io_uring_sqe){.opcode = IORING_OP_SEND, .flags = IOSQE_FIXED_FILE, .fd = i + 1,
                                                 .addr = (unsigned long)parts[i].iov_base, .len = parts[i].iov_len};
            array[at] = at;
        }
        __atomic_store_n(tail, *tail + n, __ATOMIC_RELEASE);
        check(syscall(__NR_io_uring_enter, ring, n, n, IORING_ENTER_GETEVENTS, 0, 0), "io_uring_enter");
        __atomic_store_n(head, __atomic_load_n(done_tail, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
        break;
    }
    case 3:
        for (int i = 0; i < n; i++) check(send(connected[i], parts[i].iov_base, parts[i].iov_len, 0), "send");
    }
}

static void empty(void) {
    static char sink[65536];
    for (int i = 0; i < n; i++)
        while (recv(to[i], sink, sizeof sink, MSG_DONTWAIT) >= 0) {}
}

static int order(const void *a, const void *b) {
    double x = *(double *)a, y = *(double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    if (argc > 1) n = atoi(argv[1]);
    size_t bytes = argc > 2 ? atoi(argv[2]) : 1080;
    if (n < 1 || n > MAX || bytes < 1 || bytes > 65000) return fprintf(stderr, "many [1..128] [BYTES]\n"), 2;
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof any;
    check(from = socket(AF_INET, SOCK_DGRAM, 0), "socket");
    check(bind(from, (void *)&any, sizeof any), "bind");
    for (int i = 0; i < n; i++) {
        check(to[i] = socket(AF_INET, SOCK_DGRAM, 0), "socket");
        check(bind(to[i], (void *)&any, sizeof any), "bind");
        check(getsockname(to[i], (void *)&addresses[i], &len), "getsockname");
        check(connected[i] = socket(AF_INET, SOCK_DGRAM, 0), "socket");
        check(connect(connected[i], (void *)&addresses[i], len), "connect");
        parts[i] = (struct iovec){calloc(1, bytes), bytes};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &addresses[i], .msg_namelen = len,
                                              .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    open_ring();
    double times[WAYS][ROUNDS], ratios[ROUNDS];
    for (int round = 0; round < ROUNDS; round++)
        for (int way = 0; way < WAYS; way++) {
            double took = 0;
            int sends = 6000 / n;
            for (int i = 0; i < sends; i++) {
                double start = now();
                send_all(way);
                took += now() - start;
                if (i % 16 == 15) empty();
            }
            empty();
            times[way][round] = took / sends / n * 1e9;
        }
    for (int way = 0; way < WAYS; way++) {
        for (int round = 0; round < ROUNDS; round++) ratios[round] = times[way][round] / times[0][round];
        qsort(ratios, ROUNDS, sizeof(double), order);
        printf("%-10s %6.0f ns  %.2f (%.2f to %.2f)\n", names[way], times[way][ROUNDS / 2], ratios[ROUNDS / 2],
               ratios[0], ratios[ROUNDS - 1]);
    }
}
