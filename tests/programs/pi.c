/* pi [seconds]: computes pi with all ranks for so many seconds (12), and proves that no message was lost.
 *
 * In every round each rank integrates its share of 4/(1+x*x) over [0,1], and the sums are added up. With
 * them goes an exact integer: in round i rank r contributes (i+1)*(r+1), so that after n rounds the total
 * must be n(n+1)/2 * size(size+1)/2 modulo 2^64. Rank 0 decides when to stop.
 *
 * Exit code 0 if pi and checksum are right on every rank.
 */
#include <inttypes.h>
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#define STEPS 200000

static double integrate(int rank, int size)
{
    double sum = 0.0;
    for (int i = rank; i < STEPS; i += size) {
        double x = (i + 0.5) / STEPS;
        sum += 4.0 / (1.0 + x * x);
    }
    return sum / STEPS;
}

int main(int argc, char **argv)
{
    int rank, size, go_on = 1;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    double seconds = argc > 1 ? atof(argv[1]) : 12.0;
    double start = MPI_Wtime(), next_report = 1.0, error_max = 0.0, pi = 0.0;
    uint64_t rounds = 0, checksum = 0;

    while (go_on) {
        double part = integrate(rank, size);
        uint64_t mine = (rounds + 1) * (uint64_t)(rank + 1), all = 0;
        MPI_Allreduce(&part, &pi, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
        MPI_Allreduce(&mine, &all, 1, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
        checksum += all;
        rounds++;
        error_max = fmax(error_max, fabs(pi - acos(-1.0)));

        double elapsed = MPI_Wtime() - start;
        if (rank == 0 && elapsed >= next_report) {
            printf("%3.0f s: pi = %.10f after %" PRIu64 " rounds\n", elapsed, pi, rounds);
            fflush(stdout);
            next_report += 1.0;
        }
        go_on = elapsed < seconds;
        MPI_Bcast(&go_on, 1, MPI_INT, 0, MPI_COMM_WORLD);
    }

    uint64_t triangle = rounds % 2 ? (rounds + 1) / 2 * rounds : rounds / 2 * (rounds + 1);
    uint64_t expected = triangle * ((uint64_t)size * (uint64_t)(size + 1) / 2);
    int good = checksum == expected && error_max < 1e-9, all_good = 0;
    MPI_Allreduce(&good, &all_good, 1, MPI_INT, MPI_LAND, MPI_COMM_WORLD);
    if (rank == 0)
        printf("pi = %.10f, error %s 1e-9, rounds %" PRIu64 ", checksum %s\n", pi,
               error_max < 1e-9 ? "<" : ">=", rounds, checksum == expected ? "OK" : "WRONG");
    MPI_Finalize();
    return all_good ? 0 : 1;
}
