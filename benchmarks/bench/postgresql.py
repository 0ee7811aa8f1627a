"""A PostgreSQL of the benchmark's own that counts every statement (pg_stat_statements)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.processes import BenchmarkError, free_port, scratch_directory, wait_until

USER = "nobody"
"""It refuses to run as root."""


class PostgreSQL:
    """A running server with one empty database, at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._made = 0
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute("CREATE EXTENSION pg_stat_statements")

    def close(self) -> None:
        self._connection.close()

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        self._made += 1
        self._connection.execute(f"CREATE DATABASE fresh_{self._made}")
        return f"{self.url.rpartition('/')[0]}/fresh_{self._made}"

    def reads(self, table: str) -> int:
        """Statements that have read this table so far."""
        row = self._connection.execute(
            "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query ~* %s",
            [rf"\mfrom\s+{table}\M"],
        ).fetchone()
        assert row is not None
        return int(row[0])


@contextmanager
def postgresql(scratch: Path) -> Iterator[PostgreSQL]:
    """A fresh one in `scratch`; BenchmarkError where it is not installed or does not start."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not versions:
        raise BenchmarkError("there is no PostgreSQL; apt-get install postgresql")
    with scratch_directory(scratch, "postgresql") as directory:
        if os.geteuid() == 0:
            shutil.chown(directory, USER)
        port = free_port()

        def run(program: str, *arguments: str) -> subprocess.Popen[bytes]:
            command = [str(versions[-1] / program), "-D", str(directory / "data"), *arguments]
            if os.geteuid() == 0:
                command = ["setpriv", f"--reuid={USER}", "--regid=nogroup", "--clear-groups", *command]
            with (directory / "log").open("ab") as log:
                return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

        run("initdb", "--auth=trust", "--username=windlass", "--locale=C.UTF-8").wait(120)
        process = run(
            *("postgres", "-p", str(port), "-k", str(directory), "-c", "listen_addresses=127.0.0.1"),
            *("-c", "shared_preload_libraries=pg_stat_statements"),
        )
        url = f"postgresql://windlass@127.0.0.1:{port}/postgres"
        try:
            wait_until(lambda: _answers(url), "PostgreSQL")
            server = PostgreSQL(url)
            try:
                yield server
            finally:
                server.close()
        finally:
            process.send_signal(signal.SIGINT)  # at once, whoever is connected
            process.wait(60)


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
