"""SQLAlchemy with asyncpg, which prepares every statement and asks for types of its own accord."""

import asyncio
import enum

from sqlalchemy import Enum, ForeignKey, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload
from sqlalchemy.types import String

from transcript import SCHEMA, URL, begin, show, show_error

begin("SQLAlchemy with asyncpg", "sqlalchemy")


def engine(**options):
    url = URL.split("?")[0].replace("postgres://", "postgresql+asyncpg://")
    settings = {"search_path": SCHEMA} | options.pop("settings", {})
    return create_async_engine(url, connect_args={"server_settings": settings}, **{"pool_size": 4, "pool_timeout": 120} | options)


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Mood(enum.Enum):
    CALM = "calm"
    BUSY = "busy"


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    mood: Mapped[Mood] = mapped_column(Enum(Mood), default=Mood.CALM)
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), default=list)
    profile: Mapped[dict | None] = mapped_column(JSONB)
    posts: Mapped[list["Post"]] = relationship(order_by="Post.id")


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))


async def fails(act):
    try:
        await act
    except DBAPIError as error:
        show_error(error)
    else:
        raise AssertionError("an error was expected")


async def tables_and_types(db, session):
    async with db.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    async with session() as s:
        s.add(User(name="Ada", mood=Mood.BUSY, tags=["a", "b,c"], profile={"deep": [None, 1.5]}, posts=[Post(title=f"No. {n}") for n in range(3)]))
        s.add(User(name="Bob"))
        await s.commit()
        ada = (await s.scalars(select(User).where(User.mood == Mood.BUSY).options(selectinload(User.posts)))).one()
        show(ada.id, ada.tags, ada.profile, [post.title for post in ada.posts])


async def savepoints_and_errors(db, session):
    async with session() as s, s.begin():
        s.add(Post(title="outer", user_id=1))
        try:
            async with s.begin_nested():
                s.add(User(name="Ada"))
                await s.flush()
        except DBAPIError as error:
            show_error(error)
        s.add(Post(title="after", user_id=1))
    async with session() as s:
        await fails(s.execute(text("SELECT 1/0")))
        await s.rollback()
        show((await s.scalars(select(Post.title).order_by(Post.id.desc()).limit(2))).all())


async def many_tasks_on_one_row(db, session):
    async def add(n):
        async with session() as s, s.begin():
            bob = (await s.scalars(select(User).where(User.name == "Bob").with_for_update())).one()
            bob.profile = {"count": (bob.profile or {"count": 0})["count"] + n}

    await asyncio.gather(*(add(n) for n in range(30)))
    async with session() as s:
        show(await s.scalar(select(User.profile).where(User.name == "Bob")))


async def streams(db, session):
    async with session() as s:
        s.add_all([Post(title=f"Volume {n}", user_id=2) for n in range(1000)])
        await s.commit()
    async with db.connect() as conn:
        result = await conn.stream(select(Post.title).order_by(Post.id))
        show(len([title async for (title,) in result]))
        result = await conn.stream(select(Post.title).execution_options(yield_per=10))
        show(len(await result.fetchmany(25)))
        await result.close()


async def isolation_levels(db, session):
    for level in ("SERIALIZABLE", "REPEATABLE READ", "AUTOCOMMIT"):
        async with db.connect() as conn:
            conn = await conn.execution_options(isolation_level=level)
            show(level, await conn.scalar(text("SHOW transaction_isolation")), await conn.scalar(select(func.count()).select_from(User)))


async def settings_and_timeouts(db, session):
    own = engine(pool_size=1, max_overflow=0, settings={"application_name": "own", "statement_timeout": "3000", "timezone": "Asia/Tokyo", "jit": "off"})
    async with own.connect() as conn:
        show(await conn.scalar(text("SELECT '2024-01-01 00:00:00+00'::timestamptz::text")), await conn.scalar(text("SHOW application_name")))
        await fails(conn.execute(text("SELECT pg_sleep(60)")))
        await conn.rollback()
        await conn.execute(text("SET statement_timeout = '9s'"))
        await conn.commit()
        show(await conn.scalar(text("SHOW statement_timeout")))
    await own.dispose()
    async with db.connect() as conn:
        show(await conn.scalar(text("SHOW statement_timeout")), await conn.scalar(text("SHOW timezone")) == "Asia/Tokyo")


async def the_raw_connection_for_copy_and_notifications(db, session):
    async with db.connect() as conn:
        raw = (await conn.get_raw_connection()).driver_connection
        show(await raw.copy_records_to_table("posts", records=[(n, "copied", 1) for n in range(10_000, 15_000)], columns=["id", "title", "user_id"]))
        heard = asyncio.get_running_loop().create_future()
        await raw.add_listener(f"{SCHEMA} news", lambda *arguments: heard.set_result(arguments[3]))
        async with session() as s, s.begin():
            await s.execute(select(func.pg_notify(f"{SCHEMA} news", "hello")))
        show(await heard)
        await raw.reset()
    async with session() as s:
        show(await s.scalar(select(func.count()).where(Post.title == "copied")))


async def a_table_grows_under_prepared_statements(db, session):
    async with db.begin() as conn:
        await conn.execute(text("CREATE TABLE grows AS SELECT 1 AS a"))
    async with db.connect() as conn:
        for _ in range(3):
            await conn.execute(text("SELECT * FROM grows"))
        await conn.commit()
        async with db.begin() as other:
            await other.execute(text("ALTER TABLE grows ADD b int DEFAULT 2"))
        try:
            await conn.execute(text("SELECT * FROM grows"))
        except DBAPIError as error:
            show(type(error.orig).__name__, error.orig.sqlstate)
        await conn.rollback()
        show(tuple((await conn.execute(text("SELECT * FROM grows"))).one()))


async def errors_and_the_pool_goes_on(db, session):
    async def run(sql, **values):
        async with db.begin() as conn:
            return (await conn.execute(text(sql), values)).scalar()

    await fails(run("INSERT INTO users (name, mood, tags) VALUES ('Ada', 'CALM', '{}')"))
    await fails(run("SELECT * FROM missing"))
    show(await asyncio.gather(*(run("SELECT CAST(:n AS int) + 1", n=n) for n in range(20))))


async def disconnect_and_connect_again(db, session):
    await db.dispose()
    again = engine(pool_pre_ping=True)
    async with AsyncSession(again) as s:
        show(await s.scalar(select(func.current_schema())))
    await again.dispose()


async def main():
    db = engine()
    session = async_sessionmaker(db, expire_on_commit=False)
    for act in (tables_and_types, savepoints_and_errors, many_tasks_on_one_row, streams, isolation_levels, settings_and_timeouts,
                the_raw_connection_for_copy_and_notifications, a_table_grows_under_prepared_statements, errors_and_the_pool_goes_on,
                disconnect_and_connect_again):
        print("==", act.__name__.replace("_", " "), flush=True)
        await act(db, session)


asyncio.run(main())
