"""The transcript of a program: each step under its title, and what it saw. It is the same on a direct connection and
through pgweir, so it has nothing of one moment in it (no process ids, no times)."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

URL = os.environ["DATABASE_URL"]
SCHEMA = os.environ["SCHEMA"]


def begin(name, package):
    """The first line: the program and its version, as installed."""
    print(name, version(package))


def step(title):
    """Runs the function below it as a step."""

    def run(act):
        print("==", title, flush=True)
        act()
        return act

    return run


def show(*values):
    print(*map(repr, values), flush=True)


def fails(act):
    """Shows the error that has to come, by what Postgres says of it."""
    try:
        act()
    except Exception as error:
        show_error(error)
    else:
        raise AssertionError("an error was expected")


def show_error(error):
    said = error
    while getattr(said, "sqlstate", None) is None and getattr(said, "pgcode", None) is None:
        said = getattr(said, "orig", None) or said.__cause__
        if said is None:
            raise error
    diag = getattr(said, "diag", None)
    message = diag.message_primary if diag else getattr(said, "message", None) or str(said)
    show("error", getattr(said, "sqlstate", None) or said.pgcode, message)


def crowd(size, act):
    """Many at once, each in a thread of its own."""
    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(act, range(size)))


def eventually(expected, ask):
    """Asks again until the answer is this."""
    deadline = time.monotonic() + 60
    while (answer := ask()) != expected:
        assert time.monotonic() < deadline, f"still {answer!r}"
        time.sleep(0.02)
    return answer
