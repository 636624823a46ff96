"""psycopg and asyncpg against DATABASE_URL, where the role has `statement_timeout = "40s"` and `override = "lower"`."""

import asyncio
import os

import asyncpg
import psycopg

URL = os.environ["DATABASE_URL"]
SHOW = "SELECT current_setting('statement_timeout')"


def psycopg_is_warned_and_held():
    with psycopg.connect(URL, autocommit=True, options="-c statement_timeout=60s") as conn:
        notices = []
        conn.add_notice_handler(lambda notice: notices.append((notice.sqlstate, notice.message_hint)))
        for prepare in (False, True):
            for value, shown in (("'60s'", "40s"), ("0", "40s"), ("'7s'", "7s"), ("DEFAULT", "40s")):
                conn.execute(f"SET statement_timeout TO {value}", prepare=prepare)
                assert conn.execute(SHOW).fetchone() == (shown,), (value, shown)
        assert len(notices) == 4 and all(code == "01000" for code, _ in notices), notices
        assert "roles.app.override" in notices[0][1], notices
        with conn.transaction():
            conn.execute("SET LOCAL statement_timeout = '60s'")
            assert conn.execute(SHOW).fetchone() == ("40s",)


async def asyncpg_is_warned_and_held():
    conn = await asyncpg.connect(URL, server_settings={"statement_timeout": "60s"})
    notices = []
    conn.add_log_listener(lambda _, notice: notices.append(notice.sqlstate))
    assert await conn.fetchval(SHOW) == "40s"
    await conn.execute("SET statement_timeout = '60s'")
    # With a row limit, so that the portal is suspended.
    assert await conn.fetchval("SELECT set_config('statement_timeout', '60s', false)") == "40s"
    await conn.execute("SET statement_timeout = '7s'")
    assert await conn.fetchval(SHOW) == "7s"
    # Listeners are told by the event loop, in its time; a reset forgets them.
    async with asyncio.timeout(30):
        while len(notices) < 2:
            await asyncio.sleep(0.01)
    assert notices == ["01000", "01000"], notices
    await conn.reset()
    assert await conn.fetchval(SHOW) == "40s"
    await conn.close()


psycopg_is_warned_and_held()
print("ok psycopg_is_warned_and_held")
asyncio.run(asyncpg_is_warned_and_held())
print("ok asyncpg_is_warned_and_held")
