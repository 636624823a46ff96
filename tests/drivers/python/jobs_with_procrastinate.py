"""procrastinate against DATABASE_URL: two workers that poll every ten minutes, so that only notifications wake them in time.

Prints `ok name` per check, fails on the first that does not hold.
"""

import asyncio
import collections
import os

import procrastinate.worker
import psycopg

URL = os.environ["DATABASE_URL"]
POLL = 600

# No job waits that long for its notification.
PATIENCE = 60

CLIENTS = 20
JOBS_EACH = 25

ran = collections.Counter()
more = asyncio.Event()


class Connector(procrastinate.PsycopgConnector):
    """Says when it listens."""

    def __init__(self, **options):
        super().__init__(**options)
        self.listens = asyncio.Event()

    async def _loop_notify(self, *args, **options):
        self.listens.set()
        await super()._loop_notify(*args, **options)


def application():
    app = procrastinate.App(connector=Connector(conninfo=URL, min_size=1, max_size=6))

    @app.task(name="count", queue="counting")
    async def count(id):
        ran[id] += 1
        more.set()

    return app, count


async def until_ran(count):
    async with asyncio.timeout(PATIENCE):
        while len(ran) < count:
            more.clear()
            await more.wait()


async def enqueue(conn, task, id, fails=False):
    async with conn.transaction(force_rollback=fails):
        await conn.execute("INSERT INTO orders VALUES (%s)", [id])
        await task.configure(connection=conn).defer_async(id=id)


async def client(task, number):
    async with await psycopg.AsyncConnection.connect(URL) as conn:
        for n in range(JOBS_EACH):
            await enqueue(conn, task, 1000 + number * JOBS_EACH + n, fails=n % 5 == 0)


def start(app):
    worker = procrastinate.worker.Worker(
        app=app,
        concurrency=4,
        fetch_job_polling_interval=POLL,
        abort_job_polling_interval=POLL,
        install_signal_handlers=False,
    )
    return worker, asyncio.create_task(worker.run())


async def asleep(worker):
    """Returns when the worker waits for a notification: one that comes while it still looks for jobs, it forgets."""
    async with asyncio.timeout(PATIENCE):
        while worker._running_jobs or not worker._new_job_event._waiters:
            await asyncio.sleep(0.001)


async def main():
    apps = [application() for _ in range(2)]
    for app, _ in apps:
        await app.open_async()
    (app, count), (other, _) = apps
    if not await app.check_connection_async():
        await app.schema_manager.apply_schema_async()
    worker, running = start(app)
    await asyncio.wait_for(app.connector.listens.wait(), PATIENCE)
    async with await psycopg.AsyncConnection.connect(URL, autocommit=True) as conn:
        await conn.execute("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id int)")

        # Each finds the worker asleep, and only its own notification can wake it.
        for id in range(10):
            await asleep(worker)
            await enqueue(conn, count, id)
            await until_ran(id + 1)
        print("ok a job that comes alone is run at once", flush=True)

        other_worker, other_running = start(other)
        await asyncio.wait_for(other.connector.listens.wait(), PATIENCE)
        await asyncio.gather(*(client(count, number) for number in range(CLIENTS)))
        # The last one is found by a worker that sleeps, and with it whatever both forgot.
        await asleep(worker)
        await asleep(other_worker)
        await enqueue(conn, count, 10)
        await until_ran(11 + CLIENTS * JOBS_EACH * 4 // 5)
        await asleep(worker)
        await asleep(other_worker)
        kept = [id for (id,) in await (await conn.execute("SELECT id FROM orders")).fetchall()]
        assert ran == collections.Counter(kept), ran
        left = await conn.execute("SELECT count(*) FROM procrastinate_jobs WHERE status <> 'succeeded'")
        assert await left.fetchone() == (0,)
    for task in (running, other_running):
        task.cancel()
    await asyncio.gather(running, other_running, return_exceptions=True)
    for app, _ in apps:
        await app.close_async()
    print("ok each committed job is run once, and no other")


asyncio.run(main())
