"""Fixtures of servers, for whichever folder needs one; a plugin of pytest, named in tests/conftest.py."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.agentos import RunningAgentOS
from tests.harness.mariadb import MariaDB
from tests.harness.postgres import Postgres
from tests.harness.tools import or_skip


@pytest.fixture(scope="session")
def _shared_postgres() -> Iterator[Postgres]:
    with or_skip(Postgres) as server:
        yield server


@pytest.fixture(scope="session")
def _shared_mariadb() -> Iterator[MariaDB]:
    with or_skip(MariaDB) as server:
        yield server


@pytest.fixture
def postgres(_shared_postgres: Postgres) -> Iterator[Postgres]:
    """The PostgreSQL server of this worker, as good as new for each test; who stops it takes `own_postgres`."""
    yield _shared_postgres
    _shared_postgres.clear()


@pytest.fixture
def mariadb(_shared_mariadb: MariaDB) -> Iterator[MariaDB]:
    """The MariaDB server of this worker, as good as new for each test; who stops it takes `own_mariadb`."""
    yield _shared_mariadb
    _shared_mariadb.clear()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this test's own."""
    with or_skip(Postgres) as server:
        yield server


@pytest.fixture
def own_mariadb() -> Iterator[MariaDB]:
    """A MariaDB server of this test's own."""
    with or_skip(MariaDB) as server:
        yield server


@pytest.fixture
def database(tmp_path: Path) -> str:
    """An SQLite database of this test's own, as `server.py` takes it."""
    return f"sqlite:{tmp_path / 'agno.db'}"


@pytest.fixture
def agentos(database: str) -> Iterator[RunningAgentOS]:
    """A running AgentOS on `database`."""
    with RunningAgentOS(sys.executable, database) as running:
        yield running
