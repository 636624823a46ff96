"""What does not depend on the machine's mood: system calls (strace) and user instructions (callgrind) per transaction.

Each is the difference between a long and a short run, so that start, logins and shutdown cancel out. The watcher starts the proxy:
attaching to a running one is forbidden on many machines."""

import pathlib
import re
import subprocess
import tempfile

import load

SHORT, LONG = 800, 4_800


def syscalls(start, mode, clients):
    """`start(under)` is a proxy under a watcher."""

    def total(report):
        # % time, seconds, usecs/call, calls, errors (where there are any), "total"
        return int(report.splitlines()[-1].split()[3])

    return _per_transaction(start, lambda file: ["strace", "-f", "-c", "-o", str(file)], total, mode, clients)


def instructions(start, mode, clients):
    """As `syscalls`."""

    def total(report):
        return int(re.search(r"^(?:summary|totals): (\d+)", report, re.MULTILINE)[1])

    def callgrind(file):
        return ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={file}"]

    return _per_transaction(start, callgrind, total, mode, clients)


def _per_transaction(start, watcher, total, mode, clients):
    totals = []
    for transactions in SHORT, LONG:
        with tempfile.TemporaryDirectory() as directory:
            # The watcher of PgBouncer runs without root's rights, as PgBouncer does.
            pathlib.Path(directory).chmod(0o777)
            report = pathlib.Path(directory) / "report"
            with start(watcher(report)) as proxy:
                command = ["pgbench", "-n", "-S", "-M", mode, "-c", str(clients), "-t", str(transactions // clients)]
                command.append(load.target(proxy.port))
                said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
            if "number of failed transactions: 0" not in said:
                raise RuntimeError(said)
            totals.append(total(report.read_text()))
    return (totals[1] - totals[0]) / (LONG - SHORT)
