"""An MPI program that uses what MPI has, and compares all data. Arguments: a seed and a number of rounds."""

import random
import sys

from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.rank, comm.size
seed, rounds = int(sys.argv[1]), int(sys.argv[2])
# The same in all ranks, so that all know what the others do.
common = random.Random(seed)

MIB = 1 << 20
BASE = bytes(random.Random(1).randbytes(MIB + 1))
LENGTHS = [0, 1, 8, 63, 1000, 1024, 4096, 16383, 16384, 16385, 65536, 65537, 300_000, MIB, 8 * MIB]


def pattern(number, length):
    """Bytes that depend on a number."""
    at = number * 7919 % MIB
    return (BASE[at:] + BASE * (length // len(BASE) + 1))[:length]


def expect(is_so, what):
    if not is_so:
        print(f"rank {rank}: WRONG: {what}", flush=True)
        comm.Abort(3)


def all_to_all():
    """Every rank to every rank, receives and sends in any order, some receives wild."""
    lengths = [[common.choice(LENGTHS[:-2]) for _ in range(size)] for _ in range(size)]
    # One pair of ranks exchanges what is long.
    lengths[common.randrange(size)][common.randrange(size)] = common.choice(LENGTHS[-2:])
    wild = common.random() < 0.5
    own = random.Random(seed * 1000 + rank)
    room = [bytearray(max(row[rank] for row in lengths) + 1) for _ in range(size)]
    posted = []
    steps = [("receive", peer) for peer in range(size)] + [("send", peer) for peer in range(size)]
    own.shuffle(steps)
    sends, kept = [], []
    for what, peer in steps:
        if what == "receive":
            source = MPI.ANY_SOURCE if wild else peer
            posted.append((comm.Irecv([room[peer], MPI.BYTE], source, 17), room[peer]))
        else:
            data = pattern(rank * size + peer, lengths[rank][peer])
            kept.append(data)
            mode = own.choice([comm.Isend, comm.Issend])
            sends.append(mode([data, MPI.BYTE], peer, 17))
    seen = set()
    for request, buffer in posted:
        status = MPI.Status()
        request.Wait(status)
        source, length = status.Get_source(), status.Get_count(MPI.BYTE)
        expect(length == lengths[source][rank], f"{length} bytes from {source}")
        expect(buffer[:length] == pattern(source * size + rank, length), f"contents of {length} from {source}")
        seen.add(source)
    expect(seen == set(range(size)), f"messages from {seen}")
    MPI.Request.Waitall(sends)


def order():
    """Messages of one sender with one tag come in order, whatever their lengths; other tags may overtake."""
    right, left = (rank + 1) % size, (rank - 1) % size
    lengths = [common.choice(LENGTHS[:-2]) for _ in range(30)]
    tags = [common.randrange(2) for _ in lengths]
    sends = [comm.Isend([pattern(i, n), MPI.BYTE], right, t) for i, (n, t) in enumerate(zip(lengths, tags))]
    for tag in (1, 0):
        for i, length in enumerate(lengths):
            if tags[i] == tag:
                buffer = bytearray(length)
                status = MPI.Status()
                comm.Recv([buffer, MPI.BYTE], left, tag, status)
                expect(status.Get_count(MPI.BYTE) == length, f"the length of message {i}")
                expect(buffer == pattern(i, length), f"contents of message {i}")
    MPI.Request.Waitall(sends)


def probes():
    """Messages are found by probes of all kinds, and taken by matched receives."""
    right, left = (rank + 1) % size, (rank - 1) % size
    lengths = [common.choice(LENGTHS[:-1]) for _ in range(6)]
    sends = [comm.Isend([pattern(i, n), MPI.BYTE], right, 100 + i) for i, n in enumerate(lengths)]
    expect(not comm.Iprobe(left, 999), "a message that nobody sent")
    for i in reversed(range(len(lengths))):
        status = MPI.Status()
        while not comm.Iprobe(MPI.ANY_SOURCE, 100 + i, status):
            pass
        expect(status.Get_source() == left and status.Get_count(MPI.BYTE) == lengths[i], f"probe of {i}")
        message = comm.Mprobe(left, 100 + i, status)
        buffer = bytearray(status.Get_count(MPI.BYTE))
        message.Recv([buffer, MPI.BYTE])
        expect(buffer == pattern(i, lengths[i]), f"contents of matched message {i}")
    MPI.Request.Waitall(sends)


def cancels():
    """Cancelled receives take nothing; those that are not cancelled do."""
    right, left = (rank + 1) % size, (rank - 1) % size
    buffers = [bytearray(100) for _ in range(10)]
    requests = [comm.Irecv([buffer, MPI.BYTE], left, 200 + i) for i, buffer in enumerate(buffers)]
    for i in range(0, 10, 2):
        requests[i].Cancel()
        status = MPI.Status()
        requests[i].Wait(status)
        expect(status.Is_cancelled(), f"receive {i} is cancelled")
    comm.Barrier()
    sends = [comm.Isend([pattern(i, 100), MPI.BYTE], right, 200 + i) for i in range(10)]
    for i in range(10):
        if i % 2 == 0:
            comm.Recv([buffers[i], MPI.BYTE], left, 200 + i)
        else:
            requests[i].Wait()
        expect(buffers[i] == pattern(i, 100), f"contents of {i}")
    MPI.Request.Waitall(sends)


def truncation():
    """A message longer than its receive is an error, and what follows it is right."""
    right, left = (rank + 1) % size, (rank - 1) % size
    comm.Set_errhandler(MPI.ERRORS_RETURN)
    for length in (2000, 200_000):
        sends = [comm.Isend([pattern(i, length), MPI.BYTE], right, 300) for i in range(2)]
        short, whole = bytearray(1000), bytearray(length)
        try:
            comm.Recv([short, MPI.BYTE], left, 300)
            expect(False, "truncation is an error")
        except MPI.Exception as error:
            expect(error.Get_error_class() == MPI.ERR_TRUNCATE, "truncation is called so")
        comm.Recv([whole, MPI.BYTE], left, 300)
        expect(whole == pattern(1, length), "contents after a truncated message")
        MPI.Request.Waitall(sends)
    comm.Set_errhandler(MPI.ERRORS_ARE_FATAL)


def unexpected():
    """Thousands of messages wait, and are received in another order than they came in."""
    count = 3000
    if rank == 0:
        for peer in range(1, size):
            for i in range(count):
                comm.Send([i.to_bytes(4, "little"), MPI.BYTE], peer, 1000 + i)
    comm.Barrier()
    if rank != 0:
        buffer = bytearray(4)
        for i in reversed(range(count)):
            comm.Recv([buffer, MPI.BYTE], 0, 1000 + i)
            expect(int.from_bytes(buffer, "little") == i, f"unexpected message {i}")
    comm.Barrier()


def strided():
    """Data that do not lie together."""
    right, left = (rank + 1) % size, (rank - 1) % size
    count = common.choice([100, 20_000])
    kind = MPI.BYTE.Create_vector(count, 3, 5).Commit()
    data, buffer = bytearray(pattern(9, count * 5)), bytearray(count * 5)
    comm.Sendrecv([data, 1, kind], right, 1, [buffer, 1, kind], left, 1)
    for i in range(0, count * 5 - 4, 5):
        if buffer[i : i + 3] != data[i : i + 3] or any(buffer[i + 3 : i + 5]):
            expect(False, f"strided data at {i}")
    kind.Free()


def collectives():
    """Of several lengths, compared with what they must be."""
    for length in (1, 1000, 30_000):
        root = common.randrange(size)
        got = comm.bcast(pattern(5, length * 8) if rank == root else None, root)
        expect(got == pattern(5, length * 8), "broadcast")
        mine = bytearray().join(pattern(rank * size + peer, length) for peer in range(size))
        theirs = bytearray(length * size)
        comm.Alltoall([mine, MPI.BYTE], [theirs, MPI.BYTE])
        right = bytearray().join(pattern(peer * size + rank, length) for peer in range(size))
        expect(theirs == right, "alltoall")
        numbers = memoryview(bytearray(8 * length)).cast("q")
        for i in range(length):
            numbers[i] = i * (rank + 1)
        sums = memoryview(bytearray(8 * length)).cast("q")
        comm.Allreduce([numbers, MPI.INT64_T], [sums, MPI.INT64_T])
        factor = size * (size + 1) // 2
        expect(all(sums[i] == i * factor for i in range(length)), "allreduce")
        request = comm.Ibarrier()
        request.Wait()


def remote_memory():
    """Puts, gets and accumulations, short and long, fenced and locked."""
    length = common.choice([8, 4096, 100_000, MIB])
    window = MPI.Win.Allocate(length + 8, 1, comm=comm)
    memory = memoryview(window).cast("B")
    right = (rank + 1) % size
    memory[:] = bytes(length + 8)
    window.Fence()
    mine = pattern(rank, length)
    window.Put([mine, MPI.BYTE], right, target=(0, length, MPI.BYTE))
    window.Fence()
    expect(memory[:length] == pattern((rank - 1) % size, length), f"{length} bytes put")
    got = bytearray(length)
    window.Get([got, MPI.BYTE], right, target=(0, length, MPI.BYTE))
    window.Fence()
    expect(got == mine, f"{length} bytes got")
    one = memoryview(bytearray((1).to_bytes(8, "little"))).cast("q")
    for _ in range(10):
        window.Lock(0)
        window.Accumulate([one, MPI.INT64_T], 0, target=(length, 1, MPI.INT64_T))
        window.Unlock(0)
    comm.Barrier()
    if rank == 0:
        window.Lock(0)
        total = int.from_bytes(memory[length : length + 8], "little")
        window.Unlock(0)
        expect(total == 10 * size, f"accumulated {total}")
    window.Fence()
    window.Free()


TESTS = [all_to_all, order, probes, cancels, truncation, strided, collectives, remote_memory]
unexpected()
for _ in range(rounds):
    for test in TESTS:
        test()
comm.Barrier()
if rank == 0:
    print(f"{rounds} rounds in {size} ranks: OK", flush=True)
