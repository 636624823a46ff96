"""psycopg 3 (libpq) against DATABASE_URL: prints `ok name` per check, fails on the first that does not hold."""

import asyncio
import os
import threading
import time

import psycopg
from psycopg import errors
from psycopg.rows import scalar_row

URL = os.environ["DATABASE_URL"]


def connect(**options):
    return psycopg.connect(URL, row_factory=scalar_row, **options)


def wait_until_sleeping(conn, mark):
    """Returns once some session of this database runs a statement that contains `mark`."""
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE %s"
    deadline = time.monotonic() + 30
    while conn.execute(running, [f"%{mark}%"], prepare=False).fetchone() == 0:
        assert time.monotonic() < deadline, "nobody sleeps"


def prepared_statements_survive_transactions():
    with connect(autocommit=True, prepare_threshold=0) as conn:
        for n in range(50):
            assert conn.execute("SELECT %s::int + 1", [n]).fetchone() == n + 1
            assert conn.execute("SELECT %s::text || '!'", [str(n)]).fetchone() == f"{n}!"
        with conn.transaction():
            assert conn.execute("SELECT %s::int + 1", [41]).fetchone() == 42


def prepared_statements_are_evicted_and_come_back():
    with connect(autocommit=True, prepare_threshold=0) as conn:
        conn.prepared_max = 5
        for n in list(range(20)) * 2:
            assert conn.execute(f"SELECT {n} + %s::int", [1]).fetchone() == n + 1


def transactions_commit_and_roll_back():
    with connect() as conn:
        conn.execute("CREATE TABLE kept (a int)")
        conn.commit()
        conn.execute("INSERT INTO kept VALUES (1)")
        conn.rollback()
        with conn.transaction():
            conn.execute("INSERT INTO kept VALUES (2)")
            try:
                with conn.transaction():
                    conn.execute("INSERT INTO kept VALUES (3)")
                    conn.execute("SELECT 1/0")
            except errors.DivisionByZero:
                pass
            conn.execute("INSERT INTO kept VALUES (4)")
        assert conn.execute("SELECT array_agg(a ORDER BY a) FROM kept").fetchone() == [2, 4]


def copy_in_and_out_as_text_and_binary():
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE copied (a int, b text)")
        for form in ("", "(FORMAT binary)"):
            conn.execute("TRUNCATE copied")
            with conn.cursor() as cur:
                with cur.copy(f"COPY copied FROM STDIN {form}") as copy:
                    copy.set_types(["int4", "text"])
                    for n in range(20_000):
                        copy.write_row((n, f"row {n}"))
                with cur.copy(f"COPY copied TO STDOUT {form}") as copy:
                    copy.set_types(["int4", "text"])
                    rows = list(copy.rows())
            assert len(rows) == 20_000 and (19_999, "row 19999") in rows
        try:
            with conn.cursor() as cur, cur.copy("COPY copied FROM STDIN") as copy:
                copy.write("no number\tx\n")
        except errors.InvalidTextRepresentation:
            pass
        assert conn.execute("SELECT count(*) FROM copied").fetchone() == 20_000


def cancel_ends_a_query_and_the_session_goes_on():
    with connect(autocommit=True) as conn, connect(autocommit=True) as other:
        def cancel():
            wait_until_sleeping(other, "pg_sleep(61)")
            conn.cancel_safe()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        try:
            conn.execute("SELECT pg_sleep(61)")
            raise AssertionError("it was not cancelled")
        except errors.QueryCanceled:
            pass
        canceller.join()
        assert conn.execute("SELECT 1").fetchone() == 1


def pipelines_keep_order_and_recover_from_errors():
    with connect(autocommit=True) as conn:
        with conn.pipeline():
            cursors = [conn.execute("SELECT %s::int", [n]) for n in range(200)]
            assert [cur.fetchone() for cur in cursors] == list(range(200))
        with conn.pipeline() as pipeline:
            good = conn.execute("SELECT 1")
            pipeline.sync()
            try:
                with conn.pipeline():  # ends with a Sync of its own
                    conn.execute("SELECT 1/%s", [0])
                    conn.execute("INSERT INTO nowhere VALUES (1)")
                raise AssertionError("an error was expected")
            except errors.DivisionByZero:
                pass
            assert good.fetchone() == 1
            assert conn.execute("SELECT 3").fetchone() == 3


def notices_reach_their_handler():
    with connect(autocommit=True) as conn:
        heard = []
        conn.add_notice_handler(lambda notice: heard.append((notice.severity, notice.message_primary)))
        conn.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
        assert heard == [("NOTICE", "one"), ("WARNING", "two")], heard


def a_server_side_cursor_reads_in_portions():
    with connect() as conn, conn.cursor("portions") as cur:
        cur.itersize = 100
        cur.execute("SELECT generate_series(1, 1000)")
        assert sum(cur) == 500_500


def errors_leave_the_connection_usable():
    with connect(autocommit=True) as conn:
        for sql, error in (
            ("SELEC 1", errors.SyntaxError),
            ("SELECT * FROM nowhere", errors.UndefinedTable),
            ("SELECT 1/0", errors.DivisionByZero),
        ):
            try:
                conn.execute(sql)
                raise AssertionError(sql)
            except error:
                assert conn.execute("SELECT 1").fetchone() == 1


def many_connections_share_few_backends():
    async def client(n):
        conn = await psycopg.AsyncConnection.connect(URL, autocommit=True, prepare_threshold=2, row_factory=scalar_row)
        async with conn:
            for round in range(20):
                cur = await conn.execute("SELECT %s::int * 1000 + %s::int", [n, round])
                assert await cur.fetchone() == n * 1000 + round
            async with conn.transaction():
                cur = await conn.execute("SELECT txid_current()")
                first = await cur.fetchone()
                cur = await conn.execute("SELECT txid_current()")
                assert await cur.fetchone() == first

    async def all_of_them():
        await asyncio.gather(*(client(n) for n in range(60)))

    asyncio.run(all_of_them())


for check in (
    prepared_statements_survive_transactions,
    prepared_statements_are_evicted_and_come_back,
    transactions_commit_and_roll_back,
    copy_in_and_out_as_text_and_binary,
    cancel_ends_a_query_and_the_session_goes_on,
    pipelines_keep_order_and_recover_from_errors,
    notices_reach_their_handler,
    a_server_side_cursor_reads_in_portions,
    errors_leave_the_connection_usable,
    many_connections_share_few_backends,
):
    check()
    print("ok", check.__name__, flush=True)
