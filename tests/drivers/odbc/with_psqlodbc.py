"""psqlODBC under pyodbc: statements prepared at the server or not, cursors by DECLARE/FETCH, savepoints for each statement."""

import os
import sys
import threading

import pyodbc

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../python"))
from transcript import SCHEMA, show, step  # noqa: E402

DRIVER = "/usr/lib/x86_64-linux-gnu/odbc/psqlodbcw.so"


def connect(autocommit=False, **options):
    given = {"Driver": os.environ.get("PSQLODBC", DRIVER), "Servername": os.environ["PGHOST"], "Port": os.environ["PGPORT"],
             "Database": os.environ["PGDATABASE"], "UID": os.environ["PGUSER"], "PWD": os.environ["PGPASSWORD"],
             "ConnSettings": f"SET search_path TO {SCHEMA}", "SSLmode": "disable"} | options
    return pyodbc.connect(";".join(f"{key}={value}" for key, value in given.items()), autocommit=autocommit)


def fails(act):
    try:
        act()
    except pyodbc.Error as error:
        show("error", error.args[0], error.args[1].split("ERROR: ")[-1].split(";")[0].split("\n")[0].strip())
    else:
        raise AssertionError("an error was expected")


def rows(db, text, *values):
    return [tuple(row) for row in db.execute(text, *values).fetchall()]


db = connect()
print("psqlODBC", db.getinfo(pyodbc.SQL_DRIVER_VER))


@step("RETURNING, parameters, bytes and numbers")
def _():
    db.execute("CREATE TABLE items (id serial PRIMARY KEY, name text UNIQUE, raw bytea, price numeric(12, 2) DEFAULT 0)")
    show(rows(db, "INSERT INTO items (name, raw, price) VALUES (?, ?, ?) RETURNING id, name, raw, price", "it's", b"\0\xff", 12.5))
    db.commit()
    show(rows(db, "SELECT true, 1.5::float8, '{a,b}'::text[], null, 'Grüße', 9007199254740993::bigint"))
    db.commit()


@step("statements prepared at the server, and not")
def _():
    for prepared in ("1", "0"):
        with connect(UseServerSidePrepare=prepared) as own:
            cursor = own.cursor()
            sums = []
            for n in range(20):
                sums.append(cursor.execute("SELECT ?::int + 1", n).fetchval())
                own.commit()
            show(sums)


@step("many rows by executemany")
def _():
    cursor = db.cursor()
    cursor.executemany("INSERT INTO items (name, price) VALUES (?, ?)", [(f"item {n}", n) for n in range(500)])
    db.commit()
    show(rows(db, "SELECT count(*), sum(price) FROM items"))
    db.commit()


@step("cursors by DECLARE and FETCH, in a transaction and held")
def _():
    for autocommit in (False, True):
        own = connect(autocommit, UseDeclareFetch="1", Fetch="20")
        cursor = own.execute("SELECT price FROM items ORDER BY id")
        first = [tuple(row) for row in cursor.fetchmany(3)]
        show(first, len(cursor.fetchall()))
        cursor.close()
        own.close()


@step("transactions, and an error in each way of rolling back")
def _():
    for protocol in ("7.4-0", "7.4-1", "7.4-2"):
        own = connect(Protocol=protocol)
        own.execute("INSERT INTO items (name) VALUES (?)", f"protocol {protocol}")
        fails(lambda: own.execute("INSERT INTO items (name) VALUES ('it''s')"))
        try:
            show(protocol, rows(own, "SELECT count(*) FROM items WHERE name LIKE 'protocol%'"))
        except pyodbc.Error as error:
            show(protocol, error.args[0])
        own.commit()
        own.close()
    show(rows(db, "SELECT name FROM items WHERE name LIKE 'protocol%' ORDER BY id"))
    db.rollback()


@step("isolation levels")
def _():
    own = connect()
    own.set_attr(pyodbc.SQL_ATTR_TXN_ISOLATION, pyodbc.SQL_TXN_SERIALIZABLE)
    show(rows(own, "SHOW transaction_isolation"))
    own.commit()
    own.close()


@step("connections in threads, on one row")
def _():
    def add(n):
        own = connect()
        for _ in range(4):
            own.execute("UPDATE items SET price = price + ? WHERE name = 'item 0'", n)
            own.commit()
        own.close()

    threads = [threading.Thread(target=add, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    show(rows(db, "SELECT price FROM items WHERE name = 'item 0'"))
    db.rollback()


@step("settings, timeouts and temporary tables of a session")
def _():
    own = connect(True)
    own.execute("SET TIME ZONE 'Asia/Tokyo'; SET statement_timeout = '3s'")
    fails(lambda: own.execute("SELECT pg_sleep(60)"))
    own.execute("SET statement_timeout = 0")
    own.execute("CREATE TEMPORARY TABLE mine AS SELECT generate_series(1, 4) n")
    show(rows(own, "SELECT sum(n), '2024-01-01 00:00:00+00'::timestamptz::text FROM mine"))
    own.close()
    show(rows(db, "SELECT current_setting('statement_timeout'), to_regclass('mine')::text"))
    db.rollback()


@step("the catalog, as ODBC asks for it")
def _():
    cursor = db.cursor()
    show([row.column_name for row in cursor.columns("items", schema=SCHEMA)])
    show([row.column_name for row in cursor.primaryKeys("items", schema=SCHEMA)])
    db.commit()


@step("several results of one text, and errors")
def _():
    cursor = db.execute("SELECT 1; SELECT 2, 'two'")
    show(tuple(cursor.fetchone()), cursor.nextset(), tuple(cursor.fetchone()))
    db.commit()
    for wrong in ("SELECT * FROM missing", "SELECT 1/0", "SELEC"):
        fails(lambda: db.execute(wrong))
        db.rollback()
    show(rows(db, "SELECT 1"))


@step("disconnect and connect again")
def _():
    db.close()
    again = connect()
    show(rows(again, "SELECT current_schema()"))
    again.close()
