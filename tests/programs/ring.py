"""ring.py [rounds]: passes a list around all ranks; each adds its number. Needs mpi4py, not numpy."""

import sys

from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
previous, following = (rank - 1) % size, (rank + 1) % size

token = []
for _ in range(rounds):
    if rank == 0:
        comm.send([0], dest=following)
        token = comm.recv(source=previous)
    else:
        comm.send(comm.recv(source=previous) + [rank], dest=following)

good = rank != 0 or token == list(range(size))
good = comm.allreduce(good, op=MPI.LAND)
if rank == 0:
    print(f"ring of {size}: {rounds} rounds, token {'OK' if good else f'WRONG: {token}'}", flush=True)
sys.exit(0 if good else 1)
