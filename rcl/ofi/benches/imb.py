#!/usr/bin/env python3
"""The Intel MPI benchmarks over RCL and over what MPICH has itself, in turns:
python3 rcl/ofi/benches/imb.py [ROUNDS ["one node" | "two nodes"]]

Two ranks, each pinned to a processor; medians of the rounds, with the lowest and the highest ratio of one round. "One node": ranks
share memory, MPICH by its own code. "Two nodes": nobody may, so RCL uses UDP over loopback and MPICH's netmods TCP; compared is
the better of them. Needs .ci/setup and cargo build --release -p rcl-ofi.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
MPI = ROOT / "target/mpi"
PROVIDER = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
LENGTHS = [0, 8, 64, 1024, 8192, 65536, 1 << 20, 4 << 20]
RATE_LENGTHS = [64]

RCL = {"FI_PROVIDER": "rcl", "FI_PROVIDER_PATH": str(PROVIDER), "MPIR_CVAR_CH4_NETMOD": "ofi", "MPIR_CVAR_NOLOCAL": "1"}
PLACES = {
    "one node": [("RCL", RCL), ("MPICH", {"MPIR_CVAR_CH4_NETMOD": "ofi"})],
    "two nodes": [
        ("RCL", RCL | {"RCL_SHM": "0", "RCL_ADDRESS": "127.0.0.1"}),
        ("ofi tcp", {"MPIR_CVAR_CH4_NETMOD": "ofi", "MPIR_CVAR_NOLOCAL": "1", "FI_PROVIDER": "tcp", "FI_TCP_IFACE": "lo"}),
        ("ucx tcp", {"MPIR_CVAR_CH4_NETMOD": "ucx", "MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self"}),
    ],
}


def measure(benchmark, lengths, variables):
    """Length -> microseconds for a message, one way or, for Uniband, each."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("\n".join(map(str, lengths)))
        file.flush()
        command = [MPI / "venv/bin/mpiexec"]
        for processor in range(2):
            command += [":"] if processor else []
            command += ["-n", "1", "taskset", "-c", str(processor), MPI / "impi/bin/IMB-MPI1", benchmark]
            command += ["-iter", "1000", "-time", "0.1", "-msglen", file.name]
        environment = os.environ | {"LD_LIBRARY_PATH": str(MPI / "venv/lib")} | variables
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        sys.exit(f"{benchmark} with {variables} failed:\n{done.stdout}{done.stderr}")
    times = {}
    for line in done.stdout.splitlines():
        words = line.split()
        if len(words) >= 4 and words[0].isdigit() and int(words[0]) in lengths:
            # PingPong: bytes, repetitions, microseconds, MB/s. Uniband: bytes, repetitions, MB/s, messages/s.
            value = float(words[2]) if benchmark == "PingPong" else 1e6 / float(words[3])
            times[int(words[0])] = value
    return times


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    for place, systems in PLACES.items():
        if place not in (sys.argv[2:] or PLACES):
            continue
        for benchmark, lengths in (("PingPong", LENGTHS), ("Uniband", RATE_LENGTHS)):
            results = {name: [] for name, _ in systems}
            for _ in range(rounds):
                for name, variables in systems:
                    results[name].append(measure(benchmark, lengths, variables))
            for length in lengths:
                medians = {name: statistics.median(t[length] for t in times) for name, times in results.items()}
                best = min((name for name in medians if name != "RCL"), key=medians.get)
                ratios = sorted(r[length] / b[length] for r, b in zip(results["RCL"], results[best]))
                ratio = medians["RCL"] / medians[best]
                print(
                    f"{place:9} {benchmark:8} {length:8} B  RCL {medians['RCL']:9.2f} us  "
                    f"{best} {medians[best]:9.2f} us  {ratio:.2f} of its time ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
