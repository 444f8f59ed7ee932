/* crash RANK SECONDS [abort|exit|mpi]: after SECONDS that rank calls abort() (the default), or exit(0)
 * without MPI_Finalize, or MPI_Abort with code 7. The others wait for it in a barrier, for ever. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const char *how = argc > 3 ? argv[3] : "abort";
    if (rank == (argc > 1 ? atoi(argv[1]) : 0)) {
        usleep((useconds_t)((argc > 2 ? atof(argv[2]) : 1.0) * 1e6));
        printf("rank %d: %s\n", rank, how);
        fflush(stdout);
        if (strcmp(how, "mpi") == 0)
            MPI_Abort(MPI_COMM_WORLD, 7);
        if (strcmp(how, "exit") == 0)
            _exit(0);
        abort();
    }
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}
