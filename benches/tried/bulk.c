/* A long message over UDP and loopback by bare system calls: a stream of segments from one process to another, with a
 * window and acknowledgements, sent by copying them or from the pages of a file in which they lie.
 *
 *   cc -O2 bulk.c -o bulk && ./bulk [how] [bytes of a segment] [segments under way] [write]
 *
 * how: 0 copied; 1 from the file, for which the kernel computes checksums; 2 from the file, without, because the call
 * says that the kernel may have to cut the datagram. write: 1 if every message is written anew before it is sent. Prints
 * bytes per second, and how often the receiver looked in vain for each segment. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { MESSAGE = 1 << 20, MESSAGES = 4, HEAD = 80, ACK_EVERY = 4, BUFFER = 8 << 20, LIMIT_S = 20, DATAGRAM_MAX = 65507 };
static const double SECONDS = 0.5;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static int open_socket(struct sockaddr_in *address) {
    int s = socket(AF_INET, SOCK_DGRAM, 0), bytes = BUFFER;
    /* The second pair needs privilege. */
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    setsockopt(s, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
    socklen_t len = sizeof *address;
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(s, (void *)address, len) || getsockname(s, (void *)address, &len)) exit(1);
    return s;
}

static void receive(int s, size_t segment) {
    static char head[HEAD];
    char *messages = mmap(0, MESSAGE * MESSAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    uint64_t received = 0, vain = 0;
    size_t message = 0, at = 0;
    for (;;) {
        size_t len = MESSAGE - at < segment ? MESSAGE - at : segment;
        struct iovec parts[2] = {{head, HEAD}, {messages + message * MESSAGE + at, len}};
        ssize_t n = recvmsg(s, &(struct msghdr){.msg_iov = parts, .msg_iovlen = 2}, MSG_DONTWAIT);
        if (n < 0) {
            vain++;
            continue;
        }
        if (n == 1) break;
        if ((at += len) == MESSAGE) at = 0, message = (message + 1) % MESSAGES;
        if (++received % ACK_EVERY == 0) send(s, &received, sizeof received, 0);
    }
    printf("the receiver looked %.1f times in vain for each\n", (double)vain / received);
}

static void send_segment(int s, int how, int file, const char *bytes, off_t at, size_t len) {
    static char head[HEAD];
    struct iovec parts[2] = {{head, HEAD}, {(char *)bytes, len}};
    if (how == 0 || len < MESSAGE / 32) {
        if (sendmsg(s, &(struct msghdr){.msg_iov = parts, .msg_iovlen = 2}, 0) < 0) exit(1);
        return;
    }
    union { char bytes[CMSG_SPACE(2)]; struct cmsghdr align; } control = {{0}};
    struct msghdr first = {.msg_iov = parts, .msg_iovlen = 1};
    if (how == 2) {
        first.msg_control = &control;
        first.msg_controllen = sizeof control;
        *CMSG_FIRSTHDR(&first) = (struct cmsghdr){CMSG_LEN(2), SOL_UDP, UDP_SEGMENT};
        *(uint16_t *)CMSG_DATA(CMSG_FIRSTHDR(&first)) = DATAGRAM_MAX;
    }
    if (sendmsg(s, &first, MSG_MORE) < 0 || sendfile(s, file, &at, len) != (ssize_t)len) {
        perror("not sent; too many pages?");
        exit(1);
    }
}

int main(int argc, char **argv) {
    int how = argc > 1 ? atoi(argv[1]) : 2, write = argc > 4 ? atoi(argv[4]) : 0;
    size_t segment = argc > 2 ? strtoul(argv[2], 0, 10) : 15 * 4096, window = argc > 3 ? strtoul(argv[3], 0, 10) : 32;
    struct sockaddr_in a, b;
    int from = open_socket(&a), to = open_socket(&b);
    if (connect(from, (void *)&b, sizeof b) || connect(to, (void *)&a, sizeof a)) return 1;
    int file = memfd_create("messages", 0);
    if (ftruncate(file, MESSAGE * MESSAGES)) return 1;
    char *messages = mmap(0, MESSAGE * MESSAGES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file, 0);
    memset(messages, 1, MESSAGE * MESSAGES);
    alarm(LIMIT_S);
    if (fork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(1);
        receive(to, segment);
        return 0;
    }
    pin(0);
    uint64_t sent = 0, acknowledged = 0, bytes = 0;
    size_t message = 0, at = 0;
    double start = now(), end;
    for (;;) {
        while (sent - acknowledged >= window) {
            uint64_t count;
            if (recv(from, &count, sizeof count, MSG_DONTWAIT) == sizeof count) acknowledged = count;
        }
        size_t len = MESSAGE - at < segment ? MESSAGE - at : segment;
        if (write && at == 0) memset(messages + message * MESSAGE, (int)sent, MESSAGE);
        send_segment(from, how, file, messages + message * MESSAGE + at, message * MESSAGE + at, len);
        sent++, bytes += len;
        if ((at += len) == MESSAGE) {
            at = 0, message = (message + 1) % MESSAGES;
            if ((end = now()) - start > SECONDS) break;
        }
    }
    usleep(20000);
    send(from, "", 1, 0);
    wait(0);
    printf("%.2f GB/s\n", bytes / (end - start) / 1e9);
    return 0;
}
