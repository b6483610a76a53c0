"""A throw-away PostgreSQL server: real, in a temporary directory, gone afterwards.

with Postgres() as postgres:
    url = postgres.url("agno")          # postgresql://…, the database is made
    server = f"postgres:{url}"          # as server.py, truth.py and seed.py take it
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.harness.database_server import DatabaseServer


class PostgresMissingError(Exception):
    """PostgreSQL's programs are not installed here, or nobody is there to run them: the test has to be skipped."""


def binaries() -> Path:
    """Return the directory of the newest PostgreSQL server on this machine.

    Raises:
        PostgresMissingError: if there is none.

    """
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if found:
        return max(found, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    raise PostgresMissingError("no PostgreSQL server: neither in /usr/lib/postgresql/*/bin nor on PATH")


class Postgres(DatabaseServer):
    """A running server; a context manager. It listens on localhost only and trusts everyone there."""

    def __init__(self, standby_of: Postgres | None = None) -> None:
        """Describe the server. `standby_of` is a running one whose writes it takes over, until it is promoted."""
        self._bin = binaries()
        self._primary = standby_of
        super().__init__("agentos-exporter-pg-", "postgres", PostgresMissingError)

    def _create(self) -> None:
        if self._primary is not None:
            primary = f"postgresql://postgres@127.0.0.1:{self._primary.port}/postgres"
            options = ("--wal-method=stream", "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
            self._run("pg_basebackup", f"--dbname={primary}", f"--pgdata={self._data}", *options)
        else:
            options = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
            self._run("initdb", f"--pgdata={self._data}", *options)

    def start(self) -> None:
        """Start the server, also again after `stop`, and wait until it accepts connections."""
        settings = f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = f"--log={self.directory / 'log'}"
        self._run("pg_ctl", "start", "--wait", f"--pgdata={self._data}", log, f"--options={settings}")

    def stop(self) -> None:
        """Stop the server as a crash would, without waiting for its clients; what is committed stays."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate", f"--pgdata={self._data}", check=False)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the server's processes, as with a machine that is suspended: connections stay, nobody answers."""
        main = int((self._data / "postmaster.pid").read_text().split()[0])
        pids = {main}
        os.kill(main, signal.SIGSTOP)  # so that it starts no others
        try:
            pids |= {int(pid) for pid in Path(f"/proc/{main}/task/{main}/children").read_text().split()}
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def disconnect(self) -> None:
        """Let a standby take over no more: what its primary writes from now on is lost in a failover."""
        self.sql("ALTER SYSTEM SET primary_conninfo = ''")
        self.sql("SELECT pg_reload_conf()")
        while self.sql("SELECT count(*) FROM pg_stat_wal_receiver").strip() != "0":
            time.sleep(0.05)

    def promote(self) -> None:
        """Make a standby a primary, and wait until it accepts writes."""
        self._run("pg_ctl", "promote", "--wait", f"--pgdata={self._data}")

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database, which is made if it does not exist; the server must be running."""
        if database != "postgres" and not self.sql(f"SELECT 1 FROM pg_database WHERE datname = '{database}'").strip():
            self.sql(f'CREATE DATABASE "{database}"')
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement as the superuser and return what it printed, without a header."""
        url = f"postgresql://postgres@127.0.0.1:{self.port}/{database}"
        return self._run("psql", "--no-psqlrc", "-At", "-v", "ON_ERROR_STOP=1", "-c", statement, url)

    def clear(self) -> None:
        """Drop all databases and roles that were made."""
        for database in self.sql("SELECT datname FROM pg_database WHERE datname NOT LIKE 'template%'").split("\n"):
            if database.strip() not in {"", "postgres"}:
                self.sql(f'DROP DATABASE "{database.strip()}" WITH (FORCE)')
        for role in self.sql("SELECT rolname FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%'").split("\n"):
            if role.strip() not in {"", "postgres"}:
                self.sql(f'DROP ROLE "{role.strip()}"')

    def _run(self, program: str, *arguments: str, check: bool = True) -> str:
        # No pipes: the server that pg_ctl leaves behind would hold them open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [str(self._bin / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                user=self._user,
                group=self._user and pwd.getpwnam(self._user).pw_gid,
                extra_groups=[] if self._user else None,
                check=False,
            )
            output.seek(0)
            text = output.read()
        if check and done.returncode:
            raise RuntimeError(f"{program} failed with {done.returncode}: {text}")
        return text
