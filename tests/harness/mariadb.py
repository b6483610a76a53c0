"""A throw-away MariaDB server: real, in a temporary directory, gone afterwards.

with MariaDB() as mariadb:
    url = mariadb.url("agno")           # mysql://…, the database is made
    server = f"mysql:{url}"             # as server.py, truth.py and seed.py take it
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from typing import Any

import pymysql

from tests.harness.database_server import DatabaseServer
from tests.harness.patience import HANG

_SBIN = "/usr/sbin:/usr/local/sbin"
"""Where Debian puts servers; not on the PATH of an ordinary user."""


class MariaDBMissingError(Exception):
    """MariaDB's programs are not installed here, or nobody is there to run them: the test has to be skipped."""


def program(name: str) -> str:
    """Return the path of one of MariaDB's programs.

    Raises:
        MariaDBMissingError: if it is not on this machine.

    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if found is None:
        raise MariaDBMissingError(f"no MariaDB server: {name} is neither on PATH nor in {_SBIN}")
    return found


class MariaDB(DatabaseServer):
    """A running server; a context manager. It listens on localhost only; root has no password there."""

    def __init__(self) -> None:
        self._server, self._install = program("mariadbd"), program("mariadb-install-db")
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__("agentos-exporter-mariadb-", "mysql", MariaDBMissingError)

    def _create(self) -> None:
        options = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
        done = subprocess.run(
            [self._install, "--no-defaults", f"--datadir={self._data}", *options, *self._as_user],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db failed: {done.stdout}{done.stderr}")

    @property
    def _as_user(self) -> list[str]:
        return [f"--user={self._user}"] if self._user else []

    def start(self, *, deadline: float = HANG) -> None:
        """Start the server, also again after `stop`, and wait until it accepts connections.

        Raises:
            RuntimeError: if it ends, or does not accept any within `deadline` seconds; the end of its log is in it.

        """
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._server,
                    "--no-defaults",
                    f"--datadir={self._data}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    f"--socket={self.directory / 'socket'}",
                    f"--pid-file={self.directory / 'pid'}",
                    "--skip-name-resolve",
                    "--innodb-flush-log-at-trx-commit=2",
                    "--innodb-flush-method=nosync",
                    "--innodb-buffer-pool-size=128M",
                    *self._as_user,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
            )
        end = time.monotonic() + deadline
        while True:
            try:
                self.connect().close()
            except pymysql.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    log_text = (self.directory / "log").read_text(errors="replace")[-4000:]
                    raise RuntimeError(f"MariaDB does not accept connections ({error}):\n{log_text}") from error
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Kill the server, without waiting for its clients; what is committed stays."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def connect(self, database: str | None = None) -> Any:
        """Connect as root; each statement is its own transaction."""
        return pymysql.connect(host="127.0.0.1", port=self.port, user="root", database=database, autocommit=True)

    def url(self, database: str) -> str:
        """Return the URL of a database, which is made if it does not exist; the server must be running."""
        self.sql(f"CREATE DATABASE IF NOT EXISTS `{database}`")
        return f"mysql://root@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement as root and return its rows."""
        connection = self.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    def clear(self) -> None:
        """Drop all databases and users that were made."""
        for (database,) in self.sql("SHOW DATABASES"):
            if database not in {"information_schema", "mysql", "performance_schema", "sys"}:
                self.sql(f"DROP DATABASE `{database}`")
        made = "SELECT user, host FROM mysql.global_priv WHERE user NOT IN ('root', 'mysql', 'mariadb.sys', '')"
        for user, host in self.sql(made):
            self.sql(f"DROP USER '{user}'@'{host}'")
