"""Postgres, PgBouncer and pgweir on free ports of loopback, each started for one measurement and stopped after it."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]
PGWEIR = ROOT / "target/release/pgweir"

# Neither Postgres nor PgBouncer runs as root.
UNPRIVILEGED = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


class Server(typing.NamedTuple):
    """A process that clients reach on a port."""

    port: int
    pid: int


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def scratch():
    """A directory that Postgres and PgBouncer may use."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="pgweir-bench."))
    if UNPRIVILEGED:
        shutil.chown(path, "postgres", "postgres")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(command, port, log, stop=signal.SIGTERM):
    """The command until the block ends; entered when it takes connections."""
    with open(log, "ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent)
    try:
        deadline = time.monotonic() + 60
        while not takes_connections(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()}")
            time.sleep(0.05)
        yield Server(port, process.pid)
    finally:
        if process.poll() is None:
            os.kill(watched(process.pid), stop)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def watched(pid):
    """The process under strace, which would not tell what it counted if it were stopped itself; else the process."""
    if "strace" in pathlib.Path(f"/proc/{pid}/comm").read_text():
        return int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return pid


def takes_connections(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def postgres(directory, scale, connections_max=700):
    """Debian's newest Postgres with pgbench's tables; CPU-bound, as nothing waits for a disk."""
    programs = subprocess.run([ROOT / "scripts/postgres-bin"], check=True, capture_output=True, text=True).stdout.strip()
    data, port = directory / "data", free_port()
    initdb = [f"{programs}/initdb", "--auth=trust", "--username=bench", "--no-sync", "-D", str(data)]
    subprocess.run(UNPRIVILEGED + initdb, check=True, stdout=subprocess.DEVNULL, cwd=directory)
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": connections_max,
        "shared_buffers": "256MB",
        "fsync": "off",
        "synchronous_commit": "off",
        "autovacuum": "off",
    }
    command = [f"{programs}/postgres", "-D", str(data)] + [f"--{name}={value}" for name, value in settings.items()]
    # Fast shutdown: a smart one waits for the proxies' backends.
    with running(UNPRIVILEGED + command, port, directory / "postgres.log", stop=signal.SIGINT) as server:
        wait_until_ready(port)
        psql = ["psql", "-Xqd", f"host=127.0.0.1 port={port} user=bench dbname=postgres"]
        subprocess.run(psql + ["-c", "CREATE DATABASE bench"], check=True)
        pgbench = ["pgbench", "-iq", "-s", str(scale), f"host=127.0.0.1 port={port} user=bench dbname=bench"]
        subprocess.run(pgbench, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield server


def wait_until_ready(port):
    while subprocess.run(["pg_isready", "-qh", "127.0.0.1", "-p", str(port)]).returncode != 0:
        time.sleep(0.05)


def certificate(directory):
    """A certificate for loopback and its key, made when first asked for."""
    certificate, key = directory / "server.crt", directory / "server.key"
    if not certificate.exists():
        request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        request += ["-subj", "/CN=localhost", "-out", str(certificate), "-keyout", str(key)]
        subprocess.run(UNPRIVILEGED + request, check=True, capture_output=True, cwd=directory)
    return certificate, key


@contextlib.contextmanager
def pgweir(directory, database, size=16, workers="auto", tls=False, under=()):
    """The release build. `under`: a program that watches it, with its arguments."""
    port, file, listen_tls = free_port(), directory / "proxy.toml", ""
    if tls:
        listen_tls = 'tls = {{ mode = "allow", cert = "{}", key = "{}" }}'.format(*certificate(directory))
    file.write_text(f"""
[listen]
addr = ["127.0.0.1:{port}"]
workers = {workers!r}
{listen_tls}
[admin]
addr = "off"
[pool]
size = {size}
[databases.bench]
host = "127.0.0.1"
port = {database.port}
tls = {{ mode = "disable" }}
[roles.bench]
auth = "trust"
""")
    command = [*under, str(PGWEIR), "--config", str(file)]
    with running(command, port, directory / "pgweir.log") as server:
        yield server


@contextlib.contextmanager
def pgbouncer(directory, database, size=16, mode="transaction", tls=False, under=()):
    """Debian's PgBouncer with its defaults, but for sizes and logging."""
    port, file, users = free_port(), directory / "pgbouncer.ini", directory / "users.txt"
    users.write_text('"bench" ""\n')
    client_tls = ""
    if tls:
        client_tls = "client_tls_sslmode = allow\nclient_tls_cert_file = {}\nclient_tls_key_file = {}".format(*certificate(directory))
    file.write_text(f"""
[databases]
bench = host=127.0.0.1 port={database.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 10000
log_connections = 0
log_disconnections = 0
log_stats = 0
{client_tls}
""")
    command = [*UNPRIVILEGED, *under, shutil.which("pgbouncer") or "/usr/sbin/pgbouncer", str(file)]
    # SIGTERM stops it at once; SIGINT would wait for its clients.
    with running(command, port, directory / "pgbouncer.log") as server:
        yield server
