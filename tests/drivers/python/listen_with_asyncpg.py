"""Listeners of asyncpg against DATABASE_URL: prints `ok name` per check."""

import asyncio
import os

import asyncpg

URL = os.environ["DATABASE_URL"]

# No notification takes that long.
PATIENCE = 60


class Listener:
    """What one connection hears, as (channel, payload, whose)."""

    def __init__(self, conn):
        self.conn = conn
        self.queue = asyncio.Queue()

    def __call__(self, conn, pid, channel, payload):
        self.queue.put_nowait((channel, payload, pid))

    async def heard(self, count):
        return [await asyncio.wait_for(self.queue.get(), PATIENCE) for _ in range(count)]


async def notifications_arrive_in_order_from_whoever_sent_them(conn, other):
    listener = Listener(conn)
    await conn.add_listener("jobs", listener)
    await conn.add_listener("Other jobs", listener)
    await other.execute("NOTIFY jobs, 'plain'")
    for n in range(20):
        await other.execute("SELECT pg_notify($1, $2)", "Other jobs", f"n {n}")
    await conn.execute("NOTIFY jobs, 'my own'")
    pid = other.get_server_pid()
    expected = [("jobs", "plain", pid)] + [("Other jobs", f"n {n}", pid) for n in range(20)]
    expected += [("jobs", "my own", conn.get_server_pid())]
    came = await listener.heard(len(expected))
    assert came == expected, came


async def only_what_is_committed_arrives(conn, other):
    listener = Listener(conn)
    await conn.add_listener("jobs", listener)
    prepared = await other.prepare("SELECT pg_notify('jobs', $1)")
    try:
        async with other.transaction():
            await prepared.fetchval("rolled back")
            raise KeyError
    except KeyError:
        pass
    async with other.transaction():
        await prepared.fetchval("kept")
        try:
            async with other.transaction():
                await prepared.fetchval("to a savepoint")
                await other.execute("SELECT 1/0")
        except asyncpg.DivisionByZeroError:
            pass
        await other.executemany("SELECT pg_notify('jobs', $1)", [("many",), ("kept",), ("more",)])
    came = [payload for _, payload, _ in await listener.heard(3)]
    assert came == ["kept", "many", "more"], came


async def a_listener_that_was_removed_hears_nothing(conn, other):
    listener, left = Listener(conn), Listener(conn)
    await conn.add_listener("jobs", listener)
    await conn.add_listener("end", left)
    await conn.remove_listener("jobs", listener)
    await other.execute("NOTIFY jobs; NOTIFY \"end\"")
    assert await left.heard(1) == [("end", "", other.get_server_pid())]
    assert listener.queue.empty()
    assert await conn.fetchval("SELECT pg_listening_channels()") == "end"


async def a_pool_forgets_what_its_user_listened_to(conn, _):
    async with asyncpg.create_pool(URL, min_size=1, max_size=1) as pool:
        async with pool.acquire() as mine:
            listener = Listener(mine)
            await mine.add_listener("pooled", listener)
            await conn.execute("NOTIFY pooled, 'heard'")
            assert (await listener.heard(1))[0][1] == "heard"
            await mine.remove_listener("pooled", listener)
        async with pool.acquire() as mine:
            assert await mine.fetch("SELECT * FROM pg_listening_channels()") == []


async def many_listeners_hear_every_writer_in_its_order(*_):
    listeners = [Listener(await asyncpg.connect(URL)) for _ in range(20)]
    for listener in listeners:
        await listener.conn.add_listener("many", listener)

    async def write(name):
        conn = await asyncpg.connect(URL)
        for n in range(20):
            async with conn.transaction():
                await conn.execute("SELECT pg_notify('many', $1)", f"{name} {n}")
        await conn.close()

    await asyncio.gather(*(write(name) for name in range(10)))
    for listener in listeners:
        came = [payload for _, payload, _ in await listener.heard(200)]
        for name in range(10):
            expected = [f"{name} {n}" for n in range(20)]
            assert [payload for payload in came if payload.startswith(f"{name} ")] == expected, came
        await listener.conn.close()


async def main():
    for check in (
        notifications_arrive_in_order_from_whoever_sent_them,
        only_what_is_committed_arrives,
        a_listener_that_was_removed_hears_nothing,
        a_pool_forgets_what_its_user_listened_to,
        many_listeners_hear_every_writer_in_its_order,
    ):
        conn, other = await asyncpg.connect(URL), await asyncpg.connect(URL)
        await check(conn, other)
        await other.close()
        await conn.close()
        print("ok", check.__name__, flush=True)


asyncio.run(main())
