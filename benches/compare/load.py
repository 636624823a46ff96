"""pgbench against a proxy, and what it costs the proxy."""

import os
import pathlib
import re
import subprocess
import tempfile
import time
import typing

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Figures(typing.NamedTuple):
    """Of one run."""

    tps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """The proxy's own CPU time per transaction, user and system."""


class Sample(typing.NamedTuple):
    """At a progress report of pgbench."""

    clock: float
    at: float
    """Seconds since pgbench began."""
    tps: float
    """Since the report before."""
    cpu_seconds: float
    """What the proxy has used so far."""


def cpu_seconds(pid):
    """User and system time of all threads. The kernel scales their sum to the scheduler's nanoseconds."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_bytes(pid):
    # Counted now; VmRSS may be 64 pages behind for each CPU.
    memory = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^Rss:\s+(\d+) kB", memory, re.MULTILINE)[1]) * 1024


def target(port):
    return f"host=127.0.0.1 port={port} user=bench dbname=bench"


def pgbench(server, clients, seconds, arguments, sampled):
    """Figures of so many seconds, from one second after all clients are connected. `sampled`: the part of the transactions that is logged; pgbench writes
    its log by the 4 KB, and loses the rest at the end."""
    with tempfile.TemporaryDirectory() as directory:
        # It is stopped when there is enough: its own clock starts before its clients connect.
        command = ["pgbench", "-n", "-c", str(clients), "-T", "600", "--progress=1"]
        command += ["--log", f"--log-prefix={directory}/log", f"--sampling-rate={sampled}", *arguments, target(server.port)]
        samples, said = [], []
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as run:
            for line in run.stderr:
                said.append(line)
                if progress := re.match(r"progress: ([\d.]+) s, ([\d.]+) tps", line):
                    samples.append(Sample(time.time(), float(progress[1]), float(progress[2]), cpu_seconds(server.pid)))
                if len(samples) == seconds + 1:
                    run.terminate()
                    break
        if len(samples) <= seconds:
            raise RuntimeError(f"{command}:\n{''.join(said)}")
        logs = "".join(log.read_text() for log in pathlib.Path(directory).iterdir())
    first, last = samples[0], samples[-1]
    transactions = sum(sample.tps * (sample.at - before.at) for before, sample in zip(samples, samples[1:]))
    # Client, transaction, microseconds, script, seconds and microseconds of its end; the last line may be cut off.
    lines = (line.split() for line in logs.splitlines())
    latencies = sorted(int(line[2]) / 1000 for line in lines if len(line) == 6 and first.clock <= int(line[4]) <= last.clock)
    return Figures(
        tps=transactions / (last.at - first.at),
        p50_ms=latencies[len(latencies) // 2],
        p99_ms=latencies[len(latencies) * 99 // 100],
        cpu_us=(last.cpu_seconds - first.cpu_seconds) / transactions * 1e6,
    )
