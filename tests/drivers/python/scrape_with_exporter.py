"""Prints what prometheus-pgbouncer-exporter makes of the console at DATABASE_URL, as its HTTP server would."""

import os

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_pgbouncer_exporter.collector import PgbouncersMetricsCollector
from prometheus_pgbouncer_exporter.config import Config

registry = CollectorRegistry()
registry.register(PgbouncersMetricsCollector(Config({"pgbouncers": [{"dsn": os.environ["DATABASE_URL"]}]}).getPgbouncers()))
print(generate_latest(registry).decode())
