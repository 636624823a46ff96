"""asyncpg (its own protocol code, binary everywhere) against DATABASE_URL: prints `ok name` per check."""

import asyncio
import io
import os

import asyncpg

URL = os.environ["DATABASE_URL"]


async def prepared_statements_survive_transactions(conn):
    statement = await conn.prepare("SELECT $1::int + 1, $2::text")
    for n in range(50):
        assert tuple(await statement.fetchrow(n, "x" * n)) == (n + 1, "x" * n)
        assert await conn.fetchval("SELECT $1::bigint * 2", n) == 2 * n
    async with conn.transaction():
        assert await statement.fetchval(41, "") == 42


async def transactions_commit_and_roll_back(conn):
    await conn.execute("CREATE TABLE kept (a int)")
    async with conn.transaction():
        await conn.execute("INSERT INTO kept VALUES (1)")
        try:
            async with conn.transaction():
                await conn.execute("INSERT INTO kept VALUES (2)")
                await conn.execute("SELECT 1/0")
        except asyncpg.DivisionByZeroError:
            pass
    try:
        async with conn.transaction(isolation="serializable"):
            await conn.execute("INSERT INTO kept VALUES (3)")
            raise KeyError
    except KeyError:
        pass
    assert await conn.fetchval("SELECT array_agg(a) FROM kept") == [1]


async def copy_records_in_and_a_query_out(conn):
    await conn.execute("CREATE TABLE copied (a int, b text)")
    records = [(n, f"row {n}") for n in range(20_000)]
    await conn.copy_records_to_table("copied", records=records)
    out = io.BytesIO()
    await conn.copy_from_query("SELECT a, b FROM copied WHERE a < $1 ORDER BY a", 3, output=out)
    assert out.getvalue() == b"0\trow 0\n1\trow 1\n2\trow 2\n"
    try:
        await conn.copy_to_table("copied", source=io.BytesIO(b"no number\tx\n"))
        raise AssertionError("it was copied")
    except asyncpg.InvalidTextRepresentationError:
        pass
    assert await conn.fetchval("SELECT count(*) FROM copied") == 20_000


async def a_timeout_cancels_and_the_session_goes_on(conn):
    for _ in range(3):
        try:
            await conn.execute("SELECT pg_sleep(60)", timeout=0.05)
            raise AssertionError("it was not cancelled")
        except TimeoutError:
            pass
        assert await conn.fetchval("SELECT 1") == 1


async def executemany_is_one_pipeline(conn):
    await conn.execute("CREATE TABLE many (a int)")
    await conn.executemany("INSERT INTO many VALUES ($1)", [(n,) for n in range(5_000)])
    assert await conn.fetchval("SELECT sum(a) FROM many") == 12_497_500
    try:
        await conn.executemany("INSERT INTO many SELECT 1/$1::int", [(1,), (0,), (1,)])
        raise AssertionError("an error was expected")
    except asyncpg.DivisionByZeroError:
        pass
    assert await conn.fetchval("SELECT count(*) FROM many") == 5_000, "all or nothing"


async def notices_reach_their_listener(conn):
    heard = []
    conn.add_log_listener(lambda _, message: heard.append(message.message))
    await conn.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
    await conn.fetchval("SELECT 1")
    assert heard == ["one", "two"], heard


async def a_cursor_reads_in_portions(conn):
    async with conn.transaction():
        total = 0
        async for row in conn.cursor("SELECT generate_series(1, 1000)", prefetch=100):
            total += row[0]
    assert total == 500_500


async def errors_leave_the_connection_usable(conn):
    for sql, error in (
        ("SELEC 1", asyncpg.PostgresSyntaxError),
        ("SELECT * FROM nowhere", asyncpg.UndefinedTableError),
        ("SELECT 1/0", asyncpg.DivisionByZeroError),
    ):
        try:
            await conn.fetch(sql)
            raise AssertionError(sql)
        except error:
            assert await conn.fetchval("SELECT 1") == 1


async def a_table_that_changes_shape_is_prepared_anew(conn):
    await conn.execute("CREATE TABLE shape (a int); INSERT INTO shape VALUES (1)")
    assert tuple(await conn.fetchrow("SELECT * FROM shape")) == (1,)
    await conn.execute("ALTER TABLE shape ADD b text DEFAULT 'new'")
    assert tuple(await conn.fetchrow("SELECT * FROM shape")) == (1, "new")


async def a_pool_of_many_connections_shares_few_backends(_):
    async with asyncpg.create_pool(URL, min_size=60, max_size=60) as pool:

        async def client(n):
            for round in range(20):
                async with pool.acquire() as conn, conn.transaction():
                    first = await conn.fetchval("SELECT txid_current()")
                    assert await conn.fetchval("SELECT $1::int * 1000 + $2::int", n, round) == n * 1000 + round
                    assert await conn.fetchval("SELECT txid_current()") == first

        await asyncio.gather(*(client(n) for n in range(100)))


async def main():
    for check in (
        prepared_statements_survive_transactions,
        transactions_commit_and_roll_back,
        copy_records_in_and_a_query_out,
        a_timeout_cancels_and_the_session_goes_on,
        executemany_is_one_pipeline,
        notices_reach_their_listener,
        a_cursor_reads_in_portions,
        errors_leave_the_connection_usable,
        a_table_that_changes_shape_is_prepared_anew,
        a_pool_of_many_connections_shares_few_backends,
    ):
        conn = await asyncpg.connect(URL)
        await check(conn)
        await conn.close()
        print("ok", check.__name__, flush=True)


asyncio.run(main())
