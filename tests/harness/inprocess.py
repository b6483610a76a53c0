"""The exporter inside the test's own process and event loop, and what it shows to the outside.

async with Exporter({"it": agentos.base_url}, tmp_path / "state.db") as exporter:
    await exporter.until(lambda shown: shown("agentos_up") == 1)
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import structlog

from exporter.config import Address, AgentOS, Config, Web
from exporter.core import logs
from exporter.metrics.catalog import METRICS, Kind, Life
from exporter.service.daemon import Daemon, running
from exporter.sources.api.http import OWN_TRACE_PREFIX
from tests.harness import truth
from tests.harness.patience import HANG, stretched

PERSISTED = frozenset(
    name + suffix
    for name, metric in METRICS.items()
    if metric.life is Life.DURABLE
    for suffix in (("_bucket", "_count", "_sum") if metric.kind is Kind.HISTOGRAM else ("",))
)
"""Names of the samples that must never fall."""


class Shown:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = truth.scrape(text)
        self._named: dict[str, list[tuple[frozenset[tuple[str, str]], float]]] = {}
        for (name, labels), value in self.samples.items():
            self._named.setdefault(name, []).append((labels, value))

    def __call__(self, name: str, **labels: str) -> float:
        """Return the sum of a sample over all series that have these labels."""
        wanted = set(labels.items())
        return sum(value for have, value in self._named.get(name, ()) if wanted <= have)

    def present(self, name: str, **labels: str) -> bool:
        """Return whether there is any such series, be it at 0."""
        wanted = set(labels.items())
        return any(wanted <= have for have, _ in self._named.get(name, ()))

    def fallen_since(self, before: Shown) -> list[str]:
        """Return what a scraper must never see: persisted samples that were there before and have fallen or gone."""
        old = {sample: value for sample, value in before.samples.items() if sample[0] in PERSISTED}
        return [
            f"{sample[0]}{dict(sample[1])}: {value} → {self.samples.get(sample, 'gone')}"
            for sample, value in old.items()
            if self.samples.get(sample, -1) < value
        ]

    def of(self, agentos: str) -> truth.Totals:
        """Return what is shown of one AgentOS."""
        return {key: value for key, value in self.samples.items() if ("agentos", agentos) in key[1]}


class Inside:
    """A daemon in this process, with what it logs and serves. A context manager, which leaves logging as it was.

    Attributes:
        daemon: the daemon; there once it was entered.

    """

    daemon: Daemon

    def __init__(self) -> None:
        """Prepare to listen to it."""
        self._stream = io.StringIO()
        self._client = httpx.AsyncClient(trust_env=False, timeout=30)

    def _running(self) -> AbstractAsyncContextManager[Daemon]:
        """Return the daemon that is to run."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start the daemon."""
        self._stack = AsyncExitStack()
        self.daemon = await self._stack.enter_async_context(self._running())

    async def stop(self) -> None:
        """Stop it in order."""
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        """Start."""
        self._logging = logging.root.level, logging.root.handlers[:], warnings.showwarning
        logs.configure("info", "json", self._stream)
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        try:
            await self.stop()
            await self._client.aclose()
        finally:
            logging.captureWarnings(capture=False)
            logging.root.level, logging.root.handlers[:], warnings.showwarning = self._logging
            structlog.reset_defaults()
        if error is not None:
            print("\n".join(self.log.splitlines()[-40:]))

    @property
    def log(self) -> str:
        """Return all that was logged."""
        return self._stream.getvalue()

    def logged(self, message: str = "", **fields: object) -> list[dict[str, Any]]:
        """Return the lines that have this message and these fields."""
        lines = [json.loads(line) for line in self.log.splitlines()]
        return [
            line
            for line in lines
            if message in {"", line["msg"]} and all(line.get(name) == value for name, value in fields.items())
        ]

    async def get(self, path: str) -> str:
        """Return what the daemon's own web server answers."""
        return (await self._client.get(f"http://127.0.0.1:{self.daemon.port}{path}")).text


class Exporter(Inside):
    """A daemon with short intervals; `settings` are those of `Config`."""

    def __init__(self, agentos: Mapping[str, str | AgentOS], state: Path | None, **settings: Any) -> None:
        """`agentos` gives by name the URL, or all there is to configure."""
        super().__init__()
        instances = tuple(AgentOS(name, one) if isinstance(one, str) else one for name, one in agentos.items())
        short = {"poll_interval": 0.5, "overlap": 4, "trace_horizon": 60, "zero_hold": 0, "sessions_interval": 5}
        chosen = short | settings
        chosen |= {name: stretched(chosen[name]) for name in ("overlap", "trace_horizon")}
        self.config = Config(agentos=instances, state=state, web=Web((Address("127.0.0.1", 0),)), **chosen)
        self.load: Callable[[], Config] | None = None

    def _running(self) -> AbstractAsyncContextManager[Daemon]:
        return running(self.config, load=self.load)

    async def shown(self) -> Shown:
        """Scrape."""
        return Shown(await self.get("/metrics"))

    async def until(self, condition: Callable[[Shown], bool], *, deadline: float = HANG, what: str = "") -> Shown:
        """Scrape until a condition holds; fail if it does not at the deadline, in seconds from now."""
        end = time.monotonic() + deadline
        while not condition(shown := await self.shown()):
            if time.monotonic() > end:
                raise AssertionError(f"not so within {deadline} s: {what}\n{own(shown)}")
            await asyncio.sleep(0.3)  # what is scraped more often takes a fifth of a core
        return shown

    async def polls(self, number: int, agentos: str, *, deadline: float = HANG) -> Shown:
        """Wait for so many more polls that ended well."""
        before = (await self.shown())("agentos_exporter_polls_total", agentos=agentos, outcome="ok")
        return await self.until(
            lambda shown: shown("agentos_exporter_polls_total", agentos=agentos, outcome="ok") >= before + number,
            deadline=deadline,
            what=f"{number} good polls of {agentos}",
        )

    async def exact(self, database: str, agentos: str, *, deadline: float = HANG) -> truth.Truth:
        """Wait until what is shown of an AgentOS is what its tables hold, and still is two polls later."""
        counted = await asyncio.to_thread(truth.count, database, agentos, own_prefix=OWN_TRACE_PREFIX)
        await self.matches(counted.totals, agentos, deadline=deadline)
        return counted

    async def matches(self, totals: truth.Totals, agentos: str, *, deadline: float = HANG) -> None:
        """Wait until this is shown of an AgentOS, and still is two polls later."""
        end = time.monotonic() + deadline
        while truth.difference(totals, (await self.shown()).of(agentos)) and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        shown = await self.polls(2, agentos)
        different = truth.difference(totals, shown.of(agentos))
        assert not different, "\n".join([*different[:20], own(shown)])


def own(shown: Shown) -> str:
    """Return the exporter's own counters, for a failure's message."""
    own = ("agentos_up", "agentos_exporter_polls_total", "agentos_exporter_open", "agentos_exporter_hidden")
    own += ("agentos_exporter_ignored", "agentos_exporter_source_resets", "agentos_exporter_catching")
    return "\n".join(line for line in shown.text.splitlines() if line.startswith(own) and not line.endswith(" 0.0"))
