"""SQLAlchemy, Core and ORM, with the driver that is named: psycopg or psycopg2."""

import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal

from sqlalchemy import (BigInteger, Column, Enum, ForeignKey, Integer, LargeBinary, MetaData, Numeric, String, Table, create_engine, event,
                        func, insert, inspect, select, text, update)
from sqlalchemy.dialects.postgresql import ARRAY, INT4RANGE, INTERVAL, JSONB, TIMESTAMP, UUID, Range
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload, sessionmaker

from transcript import SCHEMA, URL, begin, crowd, fails, show, step

DRIVER = sys.argv[1]
begin(f"SQLAlchemy with {DRIVER}", "sqlalchemy")


def engine(**options):
    return create_engine(URL.replace("postgres://", f"postgresql+{DRIVER}://"), **{"pool_size": 4, "max_overflow": 2, "pool_timeout": 120} | options)


db = engine()


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), default=list)
    profile: Mapped[dict | None] = mapped_column(JSONB)
    mood: Mapped[str] = mapped_column(Enum("calm", "busy", name="mood"), default="calm")
    version: Mapped[int] = mapped_column()
    books: Mapped[list["Book"]] = relationship(back_populates="author", order_by="Book.id", cascade="all")
    __mapper_args__ = {"version_id_col": version}


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2), default=0)
    author_id: Mapped[int | None] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author | None] = relationship(back_populates="books")


things = Table("things", MetaData(), Column("id", Integer, primary_key=True), Column("big", BigInteger), Column("raw", LargeBinary),
               Column("span", INT4RANGE), Column("key", UUID), Column("lasts", INTERVAL), Column("at", TIMESTAMP(timezone=True)))


@step("tables, and what the catalog says of them")
def _():
    Base.metadata.create_all(db)
    things.metadata.create_all(db)
    Base.metadata.create_all(db)
    show(sorted(inspect(db).get_table_names()), [column["name"] for column in inspect(db).get_columns("author")])


@step("cascades, RETURNING, arrays, json and enums")
def _():
    with Session(db) as session:
        ada = Author(name="Ada", tags=["a", 'b"', "c,d"], profile={"deep": [1, None]}, books=[Book(title="One", price="12.5"), Book(title="Two")])
        session.add_all([ada, Author(name="Bob"), Author(name="Cleo", mood="busy")])
        session.commit()
        show(ada.id, [book.id for book in ada.books], ada.version)
        ada.mood = "busy"
        session.commit()
        found = session.scalars(select(Author).where(Author.tags.contains(["a"])).options(selectinload(Author.books))).one()
        show(found.name, found.mood, found.version, found.profile, found.tags, [(book.title, book.price) for book in found.books])


@step("numbers, bytes, ranges, uuids, intervals and times")
def _():
    row = {"big": 2**62, "raw": bytes(range(256)), "span": Range(1, 5), "key": "00000000-0000-4000-8000-00000000000a",
           "lasts": timedelta(days=1, microseconds=5), "at": datetime(2024, 2, 29, 12, tzinfo=timezone.utc)}
    with db.begin() as conn:
        show(conn.execute(insert(things).returning(things.c.id), [row, row | {"big": None}]).scalars().all())
        got = conn.execute(select(things).order_by("id")).first()
        show(got.big, got.raw == row["raw"], got.span, str(got.key), got.lasts, got.at.astimezone(timezone.utc))


@step("many rows, an upsert, and a server-side cursor")
def _():
    with Session(db) as session:
        session.add_all([Book(title=f"Volume {n}", price=n) for n in range(2000)])
        session.commit()
        statement = upsert(Author).values(name="Bob", version=7).on_conflict_do_update(index_elements=["name"], set_={"version": 7})
        show(session.execute(statement.returning(Author.id, Author.version)).one())
        session.commit()
    with db.connect() as conn:
        rows = conn.execution_options(stream_results=True, max_row_buffer=100).execute(select(Book.price).order_by(Book.id))
        show(sum(price for (price,) in rows))
        rows = conn.execution_options(stream_results=True, yield_per=10).execute(select(Book.id))
        show(len(rows.fetchmany(25)))
        rows.close()


@step("savepoints, and an error in one")
def _():
    with Session(db) as session:
        session.add(Book(title="outer"))
        try:
            with session.begin_nested():
                session.add(Author(name="Ada"))
                session.flush()
        except DBAPIError as error:
            show(type(error).__name__)
        with session.begin_nested():
            session.add(Book(title="inner"))
        session.commit()
        fails(lambda: session.execute(text("SELECT 1/0")))
        fails(lambda: session.execute(text("SELECT 1")))
        session.rollback()
        show(session.scalars(select(Book.title).where(Book.title.in_(["outer", "inner"])).order_by(Book.title)).all())


@step("isolation levels and autocommit")
def _():
    level = text("SHOW transaction_isolation")
    with db.connect().execution_options(isolation_level="SERIALIZABLE") as conn:
        show(conn.scalar(level))
    with db.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True) as conn:
        show(conn.scalar(level), conn.scalar(text("SHOW transaction_read_only")))
    with db.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("CREATE INDEX CONCURRENTLY by_title ON book (title)"))
        conn.execute(text("VACUUM book"))
        show(conn.scalar(level))
    with db.connect() as conn:
        show(conn.scalar(level), conn.scalar(text("SHOW transaction_read_only")))


@step("two phases")
def _():
    with db.connect() as conn:
        try:
            transaction = conn.begin_twophase(f"{SCHEMA}-1")
            conn.execute(insert(Book).values(title="prepared"))
            transaction.prepare()
            transaction.commit()
        except DBAPIError as error:
            show(type(error).__name__)
    with db.connect() as conn:
        show(conn.scalar(select(func.count()).where(Book.title == "prepared")))


@step("many threads on one row")
def _():
    def add(n):
        with Session(db) as session, session.begin():
            bob = session.scalars(select(Author).where(Author.name == "Bob").with_for_update()).one()
            bob.profile = {"count": (bob.profile or {}).get("count", 0) + 1}
            if n % 4 == 0:
                session.rollback()

    crowd(24, add)
    with Session(db) as session:
        show(session.scalar(select(Author.profile).where(Author.name == "Bob")))


@step("the same statements often, from all connections")
def _():
    statement = select(func.count()).select_from(Book).where(Book.price > 0, Book.title.like("Volume 1%"))

    def count(_):
        with db.connect() as conn:
            return [conn.scalar(statement) for _ in range(8)]

    show({n for counts in crowd(6, count) for n in counts})


@step("settings, timeouts and temporary tables of a session")
def _():
    own = engine(pool_size=1, max_overflow=0, connect_args={"application_name": "own", "options": f"-c search_path={SCHEMA} -c statement_timeout=3s"})

    @event.listens_for(own, "connect")
    def set_zone(connection, _):
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'Asia/Tokyo'")
        connection.commit()

    with own.connect() as conn:
        show(conn.scalar(text("SELECT '2024-01-01 00:00:00+00'::timestamptz::text")), conn.scalar(text("SHOW application_name")))
        fails(lambda: conn.execute(text("SELECT pg_sleep(60)")))
        conn.rollback()
        conn.execute(text("SET LOCAL statement_timeout = 0"))
        conn.execute(text("CREATE TEMPORARY TABLE picked ON COMMIT DROP AS SELECT generate_series(1, 5) n"))
        show(conn.scalar(text("SELECT sum(n) FROM picked")), conn.scalar(text("SHOW statement_timeout")))
        conn.commit()
        show(conn.scalar(text("SHOW statement_timeout")))
    own.dispose()
    with db.connect() as conn:
        show(conn.scalar(text("SHOW statement_timeout")))


@step("a table grows under statements that were used")
def _():
    with db.begin() as conn:
        conn.execute(text("CREATE TABLE grows AS SELECT 1 AS a"))
    for columns in (1, 2):
        with db.connect() as conn:
            for _ in range(8):
                row = conn.execute(text("SELECT * FROM grows")).one()
            show(tuple(row))
            conn.commit()
        if columns == 1:
            db.dispose()
            with db.begin() as conn:
                conn.execute(text("ALTER TABLE grows ADD b int DEFAULT 2"))


@step("errors, and the pool goes on")
def _():
    def run(sql, **values):
        with db.begin() as conn:
            return conn.execute(text(sql), values)

    fails(lambda: run("INSERT INTO author (name, version) VALUES ('Ada', 1)"))
    fails(lambda: run("SELECT * FROM missing"))
    fails(lambda: run("SELECT CAST(:value AS int)", value="no number"))
    with Session(db) as session:
        ada = session.scalars(select(Author).where(Author.name == "Ada")).one()
        session.execute(update(Author).where(Author.id == ada.id).values(version=99).execution_options(synchronize_session=False))
        ada.mood = "calm"
        try:
            session.flush()
        except Exception as error:
            show(type(error).__name__)
    show(run("SELECT 1").scalar())


@step("disconnect and connect again")
def _():
    db.dispose()
    again = engine(pool_pre_ping=True, poolclass=None)
    for _ in range(3):
        with sessionmaker(again)() as session:
            show(session.scalar(select(func.current_schema())))
    again.dispose()
