"""Fixtures of database servers, for whichever folder needs one; a plugin of pytest, named in tests/conftest.py."""

from collections.abc import Iterator

import pytest

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
