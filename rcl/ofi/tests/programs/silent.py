"""Rank 1 is stopped, as if its host were gone, while the others wait for a message of it. They must learn of it."""

import os
import signal

from mpi4py import MPI

comm = MPI.COMM_WORLD
comm.Barrier()
if comm.rank == 1:
    os.kill(os.getpid(), signal.SIGSTOP)
comm.Recv([bytearray(8), MPI.BYTE], 1, 5)
print(f"rank {comm.rank}: a message of a silent rank", flush=True)
