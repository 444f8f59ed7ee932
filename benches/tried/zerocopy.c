// Whether MSG_ZEROCOPY gains for UDP: `zerocopy receive ADDR`, then `zerocopy send ADDR`.
// For each size datagrams are sent for a while by turns with and without it, as trains that the kernel cuts
// (UDP_SEGMENT) where they exceed SEGMENT, if that is given. Printed: time per call, the median of rounds' ratios,
// and how many the kernel says to have copied after all.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 5757, ROUNDS = 9, MAX_INFLIGHT = 64 };
static char buffer[65536 * 8];

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static long completed, copied;
static void completions(int fd) {
    for (;;) {
        char control[128];
        struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
        if (recvmsg(fd, &message, MSG_ERRQUEUE) < 0) return;
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        if (!c) continue;
        struct sock_extended_err *e = (void *)CMSG_DATA(c);
        if (e->ee_origin != SO_EE_ORIGIN_ZEROCOPY) continue;
        long count = e->ee_data - e->ee_info + 1;
        completed += count;
        if (e->ee_code & SO_EE_CODE_ZEROCOPY_COPIED) copied += count;
    }
}

// Nanoseconds of processor time per call.
static double measure(int fd, struct sockaddr_in *to, size_t len, int flags, double time) {
    long sent = 0;
    completed = 0;
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), end = seconds(CLOCK_MONOTONIC) + time;
    while (seconds(CLOCK_MONOTONIC) < end) {
        if (flags) {
            while (sent - completed >= MAX_INFLIGHT) completions(fd);
        }
        char *from = buffer + (sent % 8) * 65536;
        for (size_t i = 0; i < len; i += 64) from[i] = sent;
        if (sendto(fd, from, len, flags, (void *)to, sizeof *to) < 0) {
            if (errno == ENOBUFS || errno == EAGAIN) continue;
            perror("sendto");
            exit(1);
        }
        sent++;
    }
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    while (flags && completed < sent) completions(fd);
    return cpu / sent * 1e9;
}

static int order(const void *a, const void *b) { return *(double *)a < *(double *)b ? -1 : 1; }

int main(int count, char **args) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    inet_pton(AF_INET, args[2], &at.sin_addr);
    int fd = socket(AF_INET, SOCK_DGRAM, 0), big = 4 << 20, one = 1;
    if (!strcmp(args[1], "receive")) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
        if (count > 3) setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof one);
        if (bind(fd, (void *)&at, sizeof at)) return perror("bind"), 1;
        alarm(60);
        for (;;) recv(fd, buffer, 65536, 0);
    }
    int segment = count > 3 ? atoi(args[3]) : 0;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
    if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one)) return perror("SO_ZEROCOPY"), 1;
    if (segment) setsockopt(fd, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment);
    size_t sizes[] = {1400, 4096, 8192, 16384, 32768, 60000};
    for (int s = 0; s < 6; s++) {
        size_t len = segment ? sizes[s] / segment * segment : sizes[s];
        if (!len) continue;
        double plain[ROUNDS], zero[ROUNDS], ratio[ROUNDS];
        long all = 0;
        copied = 0;
        for (int r = 0; r < ROUNDS; r++) {
            plain[r] = measure(fd, &at, len, 0, 0.05);
            zero[r] = measure(fd, &at, len, MSG_ZEROCOPY, 0.05);
            all += completed;
            ratio[r] = zero[r] / plain[r];
        }
        qsort(plain, ROUNDS, sizeof *plain, order), qsort(zero, ROUNDS, sizeof *zero, order), qsort(ratio, ROUNDS, sizeof *ratio, order);
        printf("%6zu B: %7.0f ns plain, %7.0f ns zero copy, ratio %.2f (%.2f to %.2f), copied after all: %.0f %%\n", len,
               plain[ROUNDS / 2], zero[ROUNDS / 2], ratio[ROUNDS / 2], ratio[0], ratio[ROUNDS - 1], 100.0 * copied / all);
    }
}
