/* sleeper [seconds]: every rank sleeps so long (60) between two barriers. Uses no processor meanwhile. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) {
        printf("asleep\n");
        fflush(stdout);
    }
    usleep((useconds_t)((argc > 1 ? atof(argv[1]) : 60.0) * 1e6));
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}
