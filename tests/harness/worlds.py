"""Fixtures of the AgentOS of this process: built once, emptied for each test; a plugin of pytest."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.harness.driven import World


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> World:
    """An AgentOS; agno's tracing is global, so a process has one."""
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
async def world(built: World) -> AsyncIterator[World]:
    """An AgentOS without traces, at the present time."""
    async with built.open():
        yield built


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the daemon has its configuration and its state."""
    return tmp_path
