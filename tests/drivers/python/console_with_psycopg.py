"""The console through psycopg 3 (libpq), at DATABASE_URL: prints `ok name` per check, fails on the first that does not hold."""

import os

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

URL = os.environ["DATABASE_URL"]


def tables_are_the_same_as_text_in_binary_and_prepared():
    with psycopg.connect(URL) as conn:
        rows = conn.execute("SHOW LISTS").fetchall()
        assert ("used_clients", 1) in rows, rows
        assert conn.execute("SHOW LISTS", binary=True).fetchall() == rows
        for _ in range(10):
            assert conn.execute("SHOW LISTS", prepare=True).fetchall() == rows
        assert conn.execute("SELECT 1").fetchone() == (1,)


def rows_have_the_names_of_pgbouncer():
    with psycopg.connect(URL, row_factory=dict_row) as conn:
        pool = conn.execute("SHOW POOLS").fetchall()[-1]
        assert (pool["database"], pool["cl_active"], pool["pool_mode"]) == ("pgbouncer", 1, "statement"), pool


def pipelines_are_answered_in_order():
    with psycopg.connect(URL, autocommit=True) as conn, conn.pipeline():
        cursors = [conn.execute(f"SHOW {table}") for table in ("STATE", "VERSION", "TOTALS")]
        assert [len(cursor.fetchall()) for cursor in cursors] == [3, 1, 22]


def errors_say_what_to_do_and_the_connection_lives_on():
    with psycopg.connect(URL, autocommit=True) as conn:
        for command, error, hint in [
            ("SHOW CLIENT", errors.SyntaxError, "SHOW CLIENTS"),
            ("SHOW MEM", errors.FeatureNotSupported, "SHOW LISTS"),
            ("DISABLE nothing", errors.InvalidCatalogName, "SHOW DATABASES"),
            ("SELECT * FROM pg_class", errors.FeatureNotSupported, "SHOW DATABASES"),
        ]:
            try:
                conn.execute(command)
            except error as told:
                assert hint in told.diag.message_hint, told.diag.message_hint
            else:
                raise AssertionError(command)
        assert conn.execute("SHOW STATE").fetchone() == ("active", "yes")


def commands_act():
    with psycopg.connect(URL, autocommit=True) as conn:
        for command in ("PAUSE app", "RESUME app", "RECONNECT app", "LIMIT app 5", "LIMIT app DEFAULT"):
            assert conn.execute(command).statusmessage == command.split()[0]


for check in (
    tables_are_the_same_as_text_in_binary_and_prepared,
    rows_have_the_names_of_pgbouncer,
    pipelines_are_answered_in_order,
    errors_say_what_to_do_and_the_connection_lives_on,
    commands_act,
):
    check()
    print("ok", check.__name__.replace("_", " "))
