"""Listeners of psycopg 3, blocking and asynchronous, against DATABASE_URL: prints `ok name` per check."""

import asyncio
import os
import time

import psycopg

URL = os.environ["DATABASE_URL"]

# No notification takes that long.
PATIENCE = 60


def connect(autocommit=True):
    return psycopg.connect(URL, autocommit=autocommit)


def heard(conn, count):
    """The next notifications as (channel, payload, whose)."""
    notices = list(conn.notifies(timeout=PATIENCE, stop_after=count))
    return [(notice.channel, notice.payload, notice.pid) for notice in notices]


def notifications_arrive_in_order_from_whoever_sent_them():
    with connect() as listener, connect() as one, connect() as other:
        listener.execute("LISTEN jobs; LISTEN \"Other jobs\"")
        one.execute("NOTIFY jobs, 'it''s one'")
        for n in range(20):
            other.execute("SELECT pg_notify(%s, %s)", ["Other jobs", f"n {n}"])
        one.execute("NOTIFY jobs")
        first, last = one.info.backend_pid, other.info.backend_pid
        expected = [("jobs", "it's one", first)]
        expected += [("Other jobs", f"n {n}", last) for n in range(20)]
        expected += [("jobs", "", first)]
        came = heard(listener, len(expected))
        assert came == expected, came


def only_what_is_committed_arrives():
    with connect() as listener, connect(autocommit=False) as writer:
        listener.execute("LISTEN jobs")
        writer.execute("CREATE TABLE orders (id int)")
        writer.commit()
        writer.execute("SELECT pg_notify('jobs', %s)", ["rolled back"])
        writer.rollback()
        for n in range(3):
            with writer.transaction():
                writer.execute("INSERT INTO orders VALUES (%s)", [n])
                writer.execute("SELECT pg_notify('jobs', %s)", [f"kept {n}"])
                try:
                    with writer.transaction():
                        writer.execute("NOTIFY jobs, 'to a savepoint'")
                        writer.execute("SELECT 1/0")
                except psycopg.errors.DivisionByZero:
                    pass
                writer.execute("NOTIFY jobs, 'twice'")
                writer.execute("NOTIFY jobs, 'twice'")
        expected = [payload for n in range(3) for payload in (f"kept {n}", "twice")]
        came = [payload for _, payload, _ in heard(listener, len(expected))]
        assert came == expected, came


def a_listen_that_is_rolled_back_is_none():
    with connect(autocommit=False) as listener, connect() as writer:
        listener.execute("LISTEN dropped")
        listener.rollback()
        listener.execute("LISTEN kept")
        assert [row[0] for row in listener.execute("SELECT * FROM pg_listening_channels()")] == []
        listener.commit()
        listener.autocommit = True
        writer.execute("NOTIFY dropped")
        writer.execute("NOTIFY kept")
        assert heard(listener, 1) == [("kept", "", writer.info.backend_pid)]
        assert [row[0] for row in listener.execute("SELECT pg_listening_channels()")] == ["kept"]
        listener.execute("UNLISTEN *")
        assert listener.execute("SELECT pg_listening_channels()").fetchall() == []


def a_listener_hears_itself():
    with connect() as conn:
        came, until = [], time.monotonic() + PATIENCE
        # What libpq took in behind the last answer it hands out with the next one; notifies() would wait for more.
        conn.add_notify_handler(lambda notice: came.append((notice.channel, notice.payload, notice.pid)))
        conn.execute("LISTEN mine")
        with conn.pipeline():
            for n in range(5):
                conn.execute("SELECT pg_notify('mine', %s)", [str(n)])
        while len(came) < 5 and time.monotonic() < until:
            conn.execute("SELECT 1")
        assert came == [("mine", str(n), conn.info.backend_pid) for n in range(5)], came


def calls_inside_functions_arrive_too():
    with connect() as listener, connect() as writer:
        listener.execute("LISTEN jobs")
        writer.execute("DO $$ BEGIN PERFORM pg_notify('jobs', 'from within'); END $$")
        assert [payload for _, payload, _ in heard(listener, 1)] == ["from within"]


async def many_listeners_hear_every_writer_in_its_order():
    async def listen(ready):
        async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as conn:
            await conn.execute("LISTEN many")
            ready.release()
            return [notice.payload async for notice in conn.notifies(timeout=PATIENCE, stop_after=200)]

    async def write(name):
        async with await psycopg.AsyncConnection.connect(URL) as conn:
            for n in range(20):
                async with conn.transaction():
                    await conn.execute("SELECT pg_notify('many', %s)", [f"{name} {n}"])

    ready = asyncio.Semaphore(0)
    listeners = [asyncio.create_task(listen(ready)) for _ in range(20)]
    for _ in listeners:
        await asyncio.wait_for(ready.acquire(), PATIENCE)
    await asyncio.gather(*(write(name) for name in range(10)))
    for came in await asyncio.gather(*listeners):
        for name in range(10):
            expected = [f"{name} {n}" for n in range(20)]
            assert [payload for payload in came if payload.startswith(f"{name} ")] == expected, came


for check in (
    notifications_arrive_in_order_from_whoever_sent_them,
    only_what_is_committed_arrives,
    a_listen_that_is_rolled_back_is_none,
    a_listener_hears_itself,
    calls_inside_functions_arrive_too,
    many_listeners_hear_every_writer_in_its_order,
):
    result = check()
    if result is not None:
        asyncio.run(result)
    print("ok", check.__name__, flush=True)
