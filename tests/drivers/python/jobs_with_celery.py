"""Celery with SQLAlchemy as broker and result backend: a worker in this process, tasks that wait, fail and are retried."""

import threading

from celery import Celery, chain, chord, group
from celery.contrib.testing.worker import start_worker
from kombu.transport.sqlalchemy import Transport
from sqlalchemy import create_engine, text

from transcript import SCHEMA, URL, begin, eventually, show, step

begin("Celery over SQLAlchemy", "celery")
PLACE = URL.replace("postgres://", "postgresql+psycopg://")
app = Celery("tasks", broker=f"sqla+{PLACE}", backend=f"db+{PLACE}")
app.conf.update(
    broker_transport_options={"pool_size": 2}, database_engine_options={"pool_size": 3}, task_default_queue=SCHEMA,
    worker_hijack_root_logger=False, broker_connection_retry_on_startup=True, worker_enable_remote_control=False, result_extended=True,
)
# It looks for jobs once a second otherwise.
Transport.polling_interval = 0.3
PATIENCE = 120
tries = {}


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=3, default_retry_delay=0)
def flaky(self, until):
    tries[self.request.root_id] = tries.get(self.request.root_id, 0) + 1
    if self.request.retries < until:
        raise self.retry(exc=KeyError("not yet"), countdown=0)
    return self.request.retries


@app.task
def wrong():
    raise ValueError("on purpose")


with start_worker(app, pool="threads", concurrency=3, perform_ping_check=False, loglevel="CRITICAL", shutdown_timeout=60):

    @step("results of many tasks")
    def _():
        results = [add.delay(n, 1) for n in range(10)]
        show([result.get(timeout=PATIENCE, interval=0.2) for result in results])

    @step("groups, chains and chords")
    def _():
        show(group(add.s(n, n) for n in range(5))().get(timeout=PATIENCE, interval=0.2))
        show(chain(add.s(1, 2), add.s(3), add.s(4))().get(timeout=PATIENCE, interval=0.2))
        show(chord((add.s(n, 1) for n in range(5)), total.s())().get(timeout=PATIENCE, interval=0.2))

    @step("a task that is retried, and one that fails")
    def _():
        show(flaky.delay(2).get(timeout=PATIENCE, interval=0.2))
        result = wrong.delay()
        try:
            result.get(timeout=PATIENCE, interval=0.2)
        except ValueError as error:
            show(type(error).__name__, str(error), result.state)

    @step("producers in threads, beside transactions of their own")
    def _():
        db = create_engine(PLACE, pool_size=2)
        with db.begin() as conn:
            conn.execute(text("CREATE TABLE ledger (n int)"))
        results = []

        def produce(n):
            with db.begin() as conn:
                conn.execute(text("INSERT INTO ledger VALUES (:n)"), {"n": n})
            results.append(add.delay(n, n))

        threads = [threading.Thread(target=produce, args=(n,)) for n in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        show(sum(result.get(timeout=PATIENCE, interval=0.2) for result in results))
        with db.connect() as conn:
            show(conn.scalar(text("SELECT sum(n) FROM ledger")))
        db.dispose()

    @step("a result that is forgotten")
    def _():
        result = add.delay(2, 2)
        show(result.get(timeout=PATIENCE, interval=0.2))
        result.forget()
        show(eventually("PENDING", lambda: app.AsyncResult(result.id).state))
