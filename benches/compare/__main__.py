"""Speed against PgBouncer, as tables in Markdown.

    python3 benches/compare           ten minutes
    python3 benches/compare --quick   rough, in four

Microseconds of a shared machine scatter by a fifth from minute to minute, so the contenders run in turn, in blocks and in random order; ratios are
taken within a block, and the median over the blocks is printed."""

import argparse
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import typing

import counts
import idle
import load
import servers

WIDE = "SELECT repeat('x', 1000) FROM generate_series(1, 1000)"
WIDE_MEGABYTES = 1.0


class Contender(typing.NamedTuple):
    name: str
    start: typing.Callable
    """Of (size of the pool, query mode, clients); a server."""


class Load(typing.NamedTuple):
    clients: int
    backends: int
    mode: str
    arguments: tuple
    sampled: float = 0.1


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="one short block instead of several")
    options.add_argument("--realtime", action="store_true", help="as root, on a machine shared with other work: before that work")
    options = options.parse_args()
    blocks, seconds = (1, 2) if options.quick else (3, 3)

    if options.realtime:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    # 5,000 clients, on both sides.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(about(blocks, seconds))
    with servers.scratch() as directory, servers.postgres(directory, scale=10) as database:
        contenders = contenders_of(directory, database)
        queries(contenders, blocks, seconds)
        logins(contenders, blocks, seconds)
        wide(contenders, blocks, seconds)
        memory(directory, database)
        counted(directory, database)


def about(blocks, seconds):
    cpu = next(line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    version = lambda *command: subprocess.run(command, capture_output=True, text=True, cwd=servers.ROOT).stdout.split("\n")[0]
    return (
        f"{os.cpu_count()} × {cpu}, Linux {platform.release()}, {version('pgbench', '--version').replace('pgbench ', '')}, "
        f"{version('pgbouncer', '--version')}, pgweir {version('git', 'describe', '--always', '--dirty')}; "
        f"{blocks} blocks of {seconds} s each\n"
    )


def contenders_of(directory, database):
    def pgbouncer(size, mode, clients):
        # 1.18 forgets prepared statements between transactions. Its session mode keeps them, with a backend for each client.
        if mode == "prepared":
            return servers.pgbouncer(directory, database, size=max(size, clients), mode="session")
        return servers.pgbouncer(directory, database, size=size)

    def pgweir(workers):
        return lambda size, mode, clients: servers.pgweir(directory, database, size=size, workers=workers)

    return [Contender("PgBouncer", pgbouncer), Contender("pgweir", pgweir("auto")), Contender("pgweir, 2 workers", pgweir(2))]


def in_turn(contenders, what, blocks, seconds):
    """What each costs: a list of Figures, one per block, by name."""
    figures = {contender.name: [] for contender in contenders}
    for _ in range(blocks):
        for contender in random.sample(contenders, len(contenders)):
            with contender.start(what.backends, what.mode, what.clients) as server:
                figures[contender.name].append(load.pgbench(server, what.clients, seconds, what.arguments, what.sampled))
    return figures


def median(figures, field):
    return statistics.median(getattr(one, field) for one in figures)


def ratio(figures, to, field):
    """Of one to another, within each block."""
    return statistics.median(getattr(one, field) / getattr(other, field) for one, other in zip(figures, to))


def queries(contenders, blocks, seconds):
    print("### Queries: `pgbench -S`\n")
    print("| clients, backends | mode | | tps | p50 ms | p99 ms | proxy CPU µs per transaction | tps ÷ PgBouncer | CPU ÷ PgBouncer |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|")
    loads = [Load(clients, 16, mode, ("-S", "-M", mode)) for clients in (1, 32, 500) for mode in ("simple", "extended", "prepared")]
    loads.append(Load(1000, 20, "simple", ("-S", "-M", "simple")))
    for what in loads:
        figures = in_turn(contenders, what, blocks, seconds)
        for name, of_it in figures.items():
            session = "; session mode, a backend per client" if name == "PgBouncer" and what.mode == "prepared" else ""
            print(
                f"| {what.clients}, {what.backends} | {what.mode} | {name}{session} | {median(of_it, 'tps'):,.0f} | {median(of_it, 'p50_ms'):.2f} | "
                f"{median(of_it, 'p99_ms'):.2f} | {median(of_it, 'cpu_us'):.1f} | {ratio(of_it, figures['PgBouncer'], 'tps'):.2f} | "
                f"{ratio(of_it, figures['PgBouncer'], 'cpu_us'):.2f} |",
                flush=True,
            )


def logins(contenders, blocks, seconds):
    print("\n### Connects: `pgbench -S -C -c 8`, a connection for each query\n")
    print("| | connects per second | p99 ms | proxy CPU µs each | CPU ÷ PgBouncer |")
    print("|---|--:|--:|--:|--:|")
    figures = in_turn(contenders, Load(8, 16, "simple", ("-S", "-C")), blocks, seconds)
    for name, of_it in figures.items():
        print(
            f"| {name} | {median(of_it, 'tps'):,.0f} | {median(of_it, 'p99_ms'):.2f} | {median(of_it, 'cpu_us'):.0f} | "
            f"{ratio(of_it, figures['PgBouncer'], 'cpu_us'):.2f} |",
            flush=True,
        )


def wide(contenders, blocks, seconds):
    print("\n### A wide result: 1,000 rows of 1,000 bytes, 4 clients\n")
    print("| | MB per second | proxy CPU µs per MB | CPU ÷ PgBouncer |")
    print("|---|--:|--:|--:|")
    with servers.scratch() as directory:
        script = directory / "wide.sql"
        script.write_text(WIDE + ";\n")
        figures = in_turn(contenders, Load(4, 16, "simple", ("-f", str(script)), sampled=1.0), blocks, seconds)
    for name, of_it in figures.items():
        print(
            f"| {name} | {median(of_it, 'tps') * WIDE_MEGABYTES:,.0f} | {median(of_it, 'cpu_us') / WIDE_MEGABYTES:.0f} | "
            f"{ratio(of_it, figures['PgBouncer'], 'cpu_us'):.2f} |",
            flush=True,
        )


def memory(directory, database):
    print(f"\n### Memory: {idle.CLIENTS:,} idle clients after a query each\n")
    print("| | PgBouncer, bytes per client | pgweir | pgweir ÷ PgBouncer |")
    print("|---|--:|--:|--:|")
    for tls in False, True:
        with servers.pgbouncer(directory, database, tls=tls) as server:
            theirs = idle.bytes_per_client(server, tls)
        with servers.pgweir(directory, database, tls=tls) as server:
            ours = idle.bytes_per_client(server, tls)
        print(f"| {'TLS' if tls else 'plain'} | {theirs:,.0f} | {ours:,.0f} | {ours / theirs:.2f} |", flush=True)


def counted(directory, database):
    print("\n### Counted, not timed: per transaction\n")
    print("| clients, backends | mode | syscalls: PgBouncer | pgweir | user instructions: PgBouncer | pgweir |")
    print("|---|---|--:|--:|--:|--:|")
    for clients, backends in (1, 16), (8, 16), (64, 8):
        for mode in "simple", "extended", "prepared":
            def pgbouncer(under):
                session = {"mode": "session", "size": max(backends, clients)} if mode == "prepared" else {"size": backends}
                return servers.pgbouncer(directory, database, under=under, **session)

            def pgweir(under):
                return servers.pgweir(directory, database, size=backends, under=under)

            row = [f"{counts.syscalls(start, mode, clients):.2f}" for start in (pgbouncer, pgweir)]
            row += [f"{counts.instructions(start, mode, clients):,.0f}" for start in (pgbouncer, pgweir)]
            print(f"| {clients}, {backends} | {mode} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
