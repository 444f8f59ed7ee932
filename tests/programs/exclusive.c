/* exclusive DIR [seconds]: proves that no rank runs twice at once. Every rank locks DIR/rank-N for as long
 * as it lives, and appends a line to it; if somebody else has the lock, it makes DIR/twice and exits with 99.
 * Then all sleep (5 seconds) between two barriers. */
#include <fcntl.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int rank;
    char name[4096];
    const char *dir = argc > 1 ? argv[1] : ".", *number = getenv("PMI_RANK");
    /* Before MPI_Init, which would wait for the other ranks. */
    snprintf(name, sizeof name, "%s/rank-%s", dir, number ? number : "none");
    int lock = open(name, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) != 0) {
        perror(name);
        snprintf(name, sizeof name, "%s/twice", dir);
        close(open(name, O_WRONLY | O_CREAT, 0644));
        return 99;
    }
    dprintf(lock, "process %d\n", (int)getpid());
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        printf("all ranks run\n");
        fflush(stdout);
    }
    usleep((useconds_t)((argc > 2 ? atof(argv[2]) : 5.0) * 1e6));
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}
