"""psycopg2: everything as simple queries, with the client's own quoting."""

import io
import select
import threading
from datetime import date
from decimal import Decimal

import psycopg2
from psycopg2 import extensions, extras, sql
from psycopg2.pool import ThreadedConnectionPool

from transcript import SCHEMA, URL, begin, crowd, fails, show, step

begin("psycopg2", "psycopg2-binary")
conn = psycopg2.connect(URL)


def rows(cur, text, *values):
    cur.execute(text, values)
    return cur.fetchall()


@step("types both ways")
def _():
    extras.register_uuid()
    with conn, conn.cursor(cursor_factory=extras.RealDictCursor) as cur:
        cur.execute("CREATE TYPE pair AS (a int, b text); CREATE TABLE items (id serial PRIMARY KEY, name text UNIQUE, tags text[], extra jsonb, raw bytea)")
        cur.execute("SELECT %(list)s AS list, %(num)s AS num, %(day)s AS day, %(text)s AS text, %(none)s AS none, %(json)s::jsonb AS json, %(pair)s::pair AS pair",
                    {"list": [1, None, 3], "num": Decimal("1.50"), "day": date(2024, 2, 29), "text": "it's \\ 100%", "none": None,
                     "json": extras.Json({"a": [1]}), "pair": (1, "x")})
        show(dict(cur.fetchone()))
        cur.execute("SELECT int4range(1, 5) AS span, '{a,\"b,c\"}'::text[] AS list, '\\x00ff'::bytea AS raw")
        row = cur.fetchone()
        show(row["span"], row["list"], bytes(row["raw"]))


@step("many rows at once, RETURNING and rowcount")
def _():
    with conn, conn.cursor() as cur:
        made = extras.execute_values(cur, "INSERT INTO items (name, tags) VALUES %s RETURNING id", [(f"item {n}", ["x"] * (n % 3)) for n in range(1000)], fetch=True)
        show(len(made), cur.rowcount)
        extras.execute_batch(cur, "UPDATE items SET extra = %s WHERE name = %s", [(extras.Json(n), f"item {n}") for n in range(100)])
        show(rows(cur, "SELECT count(extra), sum((extra)::int) FROM items"))
        cur.execute("UPDATE items SET name = upper(name) WHERE id <= 5 RETURNING name")
        show(cur.rowcount, cur.statusmessage, cur.fetchall())


@step("named cursors, with and without hold")
def _():
    with conn, conn.cursor("plain", scrollable=True) as cur:
        cur.itersize = 10
        cur.execute("SELECT id FROM items ORDER BY id")
        show(sum(id for (id,) in cur))
        cur.scroll(5, mode="absolute")
        show(cur.fetchone())
    with conn.cursor("held", withhold=True) as cur:
        cur.execute("SELECT name FROM items ORDER BY id DESC")
        conn.commit()
        show(cur.fetchmany(2), len(cur.fetchall()))
    conn.commit()


@step("COPY by file objects, and one that fails")
def _():
    with conn, conn.cursor() as cur:
        cur.execute("CREATE TABLE copied (a int, b text)")
        cur.copy_from(io.StringIO("".join(f"{n}\trow {n}\n" for n in range(20000))), "copied")
        out = io.StringIO()
        cur.copy_expert("COPY (SELECT a, b FROM copied WHERE a < 3 ORDER BY a) TO STDOUT (FORMAT csv, HEADER)", out)
        show(cur.rowcount, out.getvalue())
    with conn.cursor() as cur:
        fails(lambda: cur.copy_from(io.StringIO("no number\tx\n"), "copied"))
        conn.rollback()
        show(rows(cur, "SELECT count(*) FROM copied"))
    conn.commit()


@step("savepoints, a failed transaction, and autocommit")
def _():
    with conn.cursor() as cur:
        cur.execute("INSERT INTO items (name) VALUES ('kept'); SAVEPOINT s")
        fails(lambda: cur.execute("INSERT INTO items (name) VALUES ('kept')"))
        fails(lambda: cur.execute("SELECT 1"))
        show(conn.info.transaction_status == extensions.TRANSACTION_STATUS_INERROR)
        cur.execute("ROLLBACK TO SAVEPOINT s")
        conn.commit()
        show(rows(cur, "SELECT count(*) FROM items WHERE name = 'kept'"))
    conn.commit()
    conn.set_session(autocommit=True)
    with conn.cursor() as cur:
        cur.execute("VACUUM items")
        show(conn.info.transaction_status == extensions.TRANSACTION_STATUS_IDLE)
    conn.set_session(isolation_level="SERIALIZABLE", readonly=True, autocommit=False)
    with conn.cursor() as cur:
        show(rows(cur, "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')"))
        fails(lambda: cur.execute("DELETE FROM items"))
    conn.rollback()
    conn.set_session(isolation_level="DEFAULT", readonly="DEFAULT")


@step("large objects")
def _():
    with conn:
        big = conn.lobject(0, "wb")
        big.write(b"0123456789" * 1000)
        oid = big.oid
        big.close()
    with conn:
        big = conn.lobject(oid, "rwb")
        big.seek(9995)
        show(big.read())
        big.truncate(10)
        show(big.seek(0, 2))
        big.unlink()


@step("LISTEN and NOTIFY, waited for with select")
def _():
    conn.set_session(autocommit=True)
    other = psycopg2.connect(URL)
    with conn.cursor() as cur, other, other.cursor() as writer:
        cur.execute(sql.SQL("LISTEN {}").format(sql.Identifier(f"{SCHEMA} news")))
        writer.execute("SELECT pg_notify(%s, %s)", (f"{SCHEMA} news", "hello"))
        other.commit()
        while not conn.notifies:
            select.select([conn], [], [], 60)
            conn.poll()
        show([(notice.channel, notice.payload) for notice in conn.notifies])
        cur.execute("UNLISTEN *")
    other.close()
    conn.set_session(autocommit=False)


@step("a cancel from another thread, and a timeout of the session")
def _():
    with conn.cursor() as cur:
        cur.execute("SET statement_timeout = '3s'")
        conn.commit()
        fails(lambda: cur.execute("SELECT pg_sleep(60)"))
        conn.rollback()
        show(rows(cur, "SHOW statement_timeout"))
        cur.execute("RESET statement_timeout")
        conn.commit()
        done = threading.Event()

        def cancel():
            while not done.wait(0.05):
                conn.cancel()

        cur.execute("SELECT 1")
        threading.Thread(target=cancel).start()
        fails(lambda: cur.execute("SELECT pg_sleep(60)"))
        done.set()
    conn.rollback()
    show(conn.get_parameter_status("client_encoding"), conn.encoding)


@step("two phases")
def _():
    conn.tpc_begin(conn.xid(1, f"{SCHEMA} global", "branch"))
    with conn.cursor() as cur:
        cur.execute("INSERT INTO items (name) VALUES ('two phases')")
    conn.tpc_prepare()
    conn.tpc_commit()
    with conn, conn.cursor() as cur:
        show(rows(cur, "SELECT count(*) FROM items WHERE name = 'two phases'"))


@step("a pool of threads on one row")
def _():
    pool = ThreadedConnectionPool(1, 12, URL)

    def add(n):
        mine = pool.getconn()
        with mine, mine.cursor() as cur:
            cur.execute("SELECT extra FROM items WHERE name = 'item 50' FOR UPDATE")
            cur.execute("UPDATE items SET extra = %s WHERE name = 'item 50'", (extras.Json(cur.fetchone()[0] + n),))
        pool.putconn(mine)

    crowd(12, add)
    pool.closeall()
    with conn, conn.cursor() as cur:
        show(rows(cur, "SELECT extra FROM items WHERE name = 'item 50'"))


@step("encodings and temporary tables")
def _():
    conn.set_client_encoding("LATIN1")
    with conn, conn.cursor() as cur:
        cur.execute("CREATE TEMPORARY TABLE mine (word text) ON COMMIT PRESERVE ROWS")
        cur.execute("INSERT INTO mine VALUES (%s)", ("Grüße",))
    with conn, conn.cursor() as cur:
        show(rows(cur, "SELECT word, octet_length(word) FROM mine"))
        cur.execute("DROP TABLE mine")
    conn.set_client_encoding("UTF8")


@step("reset, disconnect and connect again")
def _():
    with conn.cursor() as cur:
        cur.execute("SET TIME ZONE 'Asia/Tokyo'")
    conn.commit()
    conn.reset()
    with conn, conn.cursor() as cur:
        show(rows(cur, "SELECT current_setting('timezone') = 'Asia/Tokyo', current_schema()"))
    conn.close()
    again = psycopg2.connect(URL, application_name="again")
    with again, again.cursor() as cur:
        show(rows(cur, "SELECT current_setting('application_name')"))
    again.close()
