"""Clients that log in, ask one query, and then do nothing: what each costs the proxy's memory."""

import contextlib
import socket
import ssl
import struct

import load

CLIENTS = 5_000


def bytes_per_client(server, tls):
    """The growth of resident memory over so many clients. Kernel buffers do not count; a first client has made all that is made once."""
    with contextlib.ExitStack() as clients:
        for _ in range(20):
            clients.enter_context(client(server.port, tls))
        before = load.resident_bytes(server.pid)
        for _ in range(CLIENTS):
            clients.enter_context(client(server.port, tls))
        return (load.resident_bytes(server.pid) - before) / CLIENTS


def client(port, tls):
    """A connection that has done one query."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as libpq
    if tls:
        connection.sendall(struct.pack("!ii", 8, 80877103))
        if connection.recv(1) != b"S":
            raise RuntimeError("the proxy offers no TLS")
        connection = TLS.wrap_socket(connection)
    parameters = b"user\0bench\0database\0bench\0\0"
    connection.sendall(struct.pack("!ii", 8 + len(parameters), 196608) + parameters)
    until_ready(connection)
    connection.sendall(b"Q" + struct.pack("!i", 13) + b"SELECT 1\0")
    until_ready(connection)
    return connection


def until_ready(connection):
    received = b""
    while not received.endswith(b"Z\0\0\0\5I"):
        part = connection.recv(4096)
        if not part:
            raise RuntimeError(f"the proxy hung up: {received}")
        received += part


TLS = ssl.create_default_context()
TLS.check_hostname = False
TLS.verify_mode = ssl.CERT_NONE
