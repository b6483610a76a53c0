"""What holds for every test of this folder: small pages, no log, and the story's databases."""

import asyncio
import logging
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import structlog

from exporter.sources.api import page_size, reader, search
from exporter.sources.database import feed
from tests.harness import sqltruth, story, truth
from tests.harness.mortal import NAME


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The story takes several pages, windows and parts of a page."""
    monkeypatch.setattr(feed, "PAGE", 8)
    monkeypatch.setattr(feed, "CHUNK", 2)
    monkeypatch.setattr(page_size, "_SMALLEST_PAGE", 2)
    monkeypatch.setattr(page_size, "_LARGEST_PAGE", 4)
    monkeypatch.setattr(reader, "_SPARE", 4)
    monkeypatch.setattr(search, "WINDOW", 5)
    monkeypatch.setattr(search.SearchReader, "_most", 5)


@pytest.fixture(autouse=True)
def _no_log() -> Generator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes into a thread runs where it is: many homes live one after another."""

    async def run(function: Callable[..., object], *arguments: object, **named: object) -> object:
        return function(*arguments, **named)

    monkeypatch.setattr(asyncio, "to_thread", run)


@pytest.fixture
def tables(tmp_path: Path) -> Generator[story.Tables]:
    tables = story.Tables(tmp_path)
    yield tables
    tables.close()


@pytest.fixture
def expected(tables: story.Tables) -> dict[str, truth.Totals]:
    """What is to be shown in the end, by kind of source, counted by those who know nothing of the exporter."""
    tables.turn(story.QUIET)
    databases = [f"sqlite:{story.path(tables.folder, db)}" for db in story.DATABASES]
    counted = {"api": truth.count(databases, NAME), "database": sqltruth.count(databases, NAME)}
    tables.turn(0)
    return {kind: one.totals for kind, one in counted.items()}
