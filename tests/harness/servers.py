"""Fixtures of servers, for whichever folder needs one; a plugin of pytest, named in tests/conftest.py."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.agentos import RunningAgentOS
from tests.harness.mariadb import MariaDB
from tests.harness.postgres import Postgres
from tests.harness.tools import or_skip


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this test's own."""
    with or_skip(Postgres) as server:
        yield server


@pytest.fixture
def mariadb() -> Iterator[MariaDB]:
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
