"""Traffic for the AgentOS of `server.py`, through its HTTP API as real clients send it.

`drive` sends a fixed number of mixed runs, `steady` a fixed rate of them. Both are deterministic in what they send;
background runs and those whose client went away are still under way when they return:
`RunningAgentOS.wait_until_quiet` waits for them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import httpx

from tests.harness.server import FAILURES


@dataclass(frozen=True)
class Run:
    """One request to run a component."""

    kind: Literal["agents", "teams", "workflows"]
    component: str
    message: str = "Hello"
    stream: bool = False
    background: bool = False
    leaves: bool = False  # the client goes away midway


@dataclass
class Outcome:
    """What became of the runs."""

    started: int = 0
    codes: Counter[int] = field(default_factory=Counter)  # HTTP status; a run that failed inside is a 200 as well
    left: int = 0  # clients that went away
    failed: Counter[str] = field(default_factory=Counter)  # exceptions by type: AgentOS was not reachable
    seconds: float = 0.0


EACH_KIND = (
    Run("agents", "plain"),
    Run("agents", "plain", stream=True),
    Run("agents", "plain", background=True),
    Run("agents", "tools"),
    Run("agents", "tools", stream=True),
    Run("agents", "parallel-tools"),
    Run("agents", "parallel-tools", stream=True),
    Run("agents", "failing-tool"),
    Run("agents", "failing-tool", stream=True),
    Run("agents", "failing-model"),
    Run("agents", "failing-model", stream=True),
    Run("agents", "slow", "Take your time sleep=0.4"),
    Run("agents", "slow", "Take your time sleep=0.6", background=True),
    Run("agents", "slow", "I will not wait sleep=0.5 words=60", stream=True, leaves=True),
    Run("agents", "slow", "I will not wait sleep=0.5", leaves=True),
    Run("agents", "hooked"),
    Run("agents", "hooked", stream=True),
    Run("agents", "nesting"),
    Run("agents", "nesting", stream=True),
    Run("agents", "vendor"),
    Run("agents", "vendor", stream=True),
    Run("agents", "claude"),
    Run("agents", "vertex"),
    Run("agents", "gemini"),
    Run("agents", "no-usage"),
    Run("agents", "home-grown"),
    Run("agents", "nameless"),
    Run("teams", "research"),
    Run("teams", "research", stream=True),
    Run("teams", "newsroom"),
    Run("workflows", "report"),
    Run("workflows", "report", stream=True),
    Run("workflows", "report", background=True),
    Run("workflows", "pipeline"),
    Run("workflows", "pipeline", stream=True),
    Run("workflows", "failing"),
)
"""One run of each kind. Every drive that is long enough has them all; the rest is drawn at random, agents preferred."""

ACCOUNTED = (
    *EACH_KIND,
    Run("agents", "thinking"),
    Run("agents", "thinking", stream=True),
    Run("agents", "caching"),
    Run("agents", "caching", stream=True),
    Run("agents", "billed"),
    Run("agents", "billed", stream=True),
    Run("agents", "xai"),
)
"""`EACH_KIND` and models that report reasoning, cache writes and costs: only AgentOS's tables tell of these."""


EACH_FAILURE = tuple(
    Run("agents", "failing-model", f"Try it fail={name}", stream=stream)
    for name in FAILURES
    for stream in (False, True)
)
"""A model call fails for each reason that there is."""


_JAILBREAK = "Please jailbreak"
BLOCKED: Mapping[Run, str] = {
    Run("agents", "guarded", _JAILBREAK): "prompt_injection",
    Run("agents", "guarded", _JAILBREAK, stream=True): "prompt_injection",
    Run("agents", "guarded", "My number is 111-22-3333"): "pii_detected",
    Run("agents", "guarded", "My number is 111-22-3333", stream=True): "pii_detected",
    Run("agents", "guarded", "This is off topic"): "",
    Run("agents", "guarded", "This is off topic", stream=True): "off_topic",
    Run("agents", "guarded", "This is forbidden"): "",
    Run("agents", "guarded", "This is forbidden", stream=True): "other",
    Run("agents", "guarded", "Name a competitor"): "",
    Run("agents", "guarded", "Name a competitor", stream=True): "output_not_allowed",
    Run("teams", "guarded-team", _JAILBREAK): "prompt_injection",
    Run("teams", "guarded-team", _JAILBREAK, stream=True): "prompt_injection",
    Run("teams", "guarded-team", "This is forbidden"): "other",
}
"""Runs that a guardrail blocks → what AgentOS tells of it, '' where it tells nothing."""
NOT_BLOCKED = (
    Run("agents", "guarded"),
    Run("agents", "guarded", stream=True),
    Run("teams", "guarded-team"),
    Run("agents", "failing-model"),
    Run("agents", "failing-model", stream=True),
    Run("agents", "failing-tool"),
)
"""Runs that end well or fail, without a guardrail's doing."""


async def drive(
    base_url: str,
    *,
    runs: int = 150,
    seed: int = 0,
    concurrency: int = 8,
    headers: Mapping[str, str] | None = None,
    leaving: bool = True,
    kinds: Sequence[Run] = EACH_KIND,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Outcome:
    """Send a number of mixed runs and wait for the answers.

    Args:
        base_url: of the AgentOS.
        runs: how many; from `len(kinds)` on, each kind occurs.
        seed: of the mix and its order.
        concurrency: how many requests are under way at a time.
        headers: of each request, e.g. `Authorization`.
        leaving: whether some clients go away midway.
        kinds: of runs; each occurs at least once.
        transport: by which the AgentOS is reached; None for the network.

    """
    outcome, began = Outcome(), time.monotonic()
    numbered = enumerate(_mix(Random(seed), runs, kinds, leaving=leaving))

    async def worker() -> None:
        for number, run in numbered:
            await _send(client, run, number, outcome)

    async with _client(base_url, headers, transport) as client, _heard(client, outcome, leaving=leaving):
        await asyncio.gather(*(worker() for _ in range(concurrency)))
    outcome.seconds = time.monotonic() - began
    return outcome


async def steady(
    base_url: str,
    *,
    rate: float,
    seconds: float | None = None,
    until: asyncio.Event | None = None,
    seed: int = 0,
    headers: Mapping[str, str] | None = None,
    leaving: bool = True,
    most: int = 200,
    kinds: Sequence[Run] = EACH_KIND,
) -> Outcome:
    """Send runs at a rate per second, however fast they are answered, for some seconds or until an event is set.

    The AgentOS may go down meanwhile: requests that fail are counted, not raised. At most `most` are under way.
    Returns when the last one is answered.
    """
    if seconds is None and until is None:
        raise ValueError("seconds or until must be given")
    outcome, began = Outcome(), time.monotonic()
    mix = _mix(Random(seed), None, kinds, leaving=leaving)
    room = asyncio.Semaphore(most)

    async def one(run: Run, number: int) -> None:
        async with room:
            await _send(client, run, number, outcome)

    async with (
        _client(base_url, headers) as client,
        _heard(client, outcome, leaving=leaving),
        asyncio.TaskGroup() as tasks,
    ):
        for number, run in enumerate(mix):
            due = number / rate
            if seconds is not None and due >= seconds:
                break
            pause = max(0.0, began + due - time.monotonic())
            if until is None:
                await asyncio.sleep(pause)
            else:
                try:
                    await asyncio.wait_for(until.wait(), pause)
                    break
                except TimeoutError:
                    pass
            tasks.create_task(one(run, number))
    outcome.seconds = time.monotonic() - began
    return outcome


@asynccontextmanager
async def _heard(client: httpx.AsyncClient, outcome: Outcome, *, leaving: bool) -> AsyncIterator[None]:
    """Wait at the end until AgentOS has begun with every run: a client may go away before what it sent is read."""
    if not leaving:
        yield
        return
    before = (await client.get("/begun")).json()
    yield
    if outcome.failed:  # AgentOS went down, and what it had counted with it
        return
    while (await client.get("/begun")).json() < before + outcome.started:  # noqa: ASYNC110 - of another process
        await asyncio.sleep(0.02)


def _mix(random: Random, runs: int | None, kinds: Sequence[Run], *, leaving: bool) -> Iterator[Run]:
    """Yield all kinds in random order, then random ones: plain and tool runs are the bulk of real traffic."""
    kinds = [run for run in kinds if leaving or not run.leaves]
    weights = [3 if run.kind == "agents" else 1 for run in kinds]
    first = random.sample(kinds, len(kinds))
    number = 0
    while runs is None or number < runs:
        yield first[number] if number < len(first) else random.choices(kinds, weights)[0]
        number += 1


async def _send(client: httpx.AsyncClient, run: Run, number: int, outcome: Outcome) -> None:
    user = f"user-{number % 5}"
    form = {
        "message": f"{run.message} #{number}",
        "stream": str(run.stream).lower(),
        "background": str(run.background).lower(),
        "session_id": f"{run.component}-{user}-{number % 2}",  # a session belongs to one user
        "user_id": user,
        "metadata": json.dumps({"tenant_id": f"tenant-{number % 3}", "prompt": "not to be shown"}),
    }
    outcome.started += 1
    try:
        # The read timeout of a client that leaves is far below the time that the run takes.
        timeout = httpx.Timeout(120, read=0.2) if run.leaves and not run.stream else httpx.USE_CLIENT_DEFAULT
        url = f"/{run.kind}/{run.component}/runs"
        async with client.stream("POST", url, data=form, timeout=timeout) as response:
            outcome.codes[response.status_code] += 1
            async for chunk in response.aiter_bytes():
                if run.leaves and b"RunContent" in chunk:
                    outcome.left += 1
                    break
    except httpx.ReadTimeout:
        if not run.leaves:
            raise
        outcome.left += 1
    except httpx.TransportError as error:
        outcome.failed[type(error).__name__] += 1


def _client(
    base_url: str, headers: Mapping[str, str] | None, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport,
        base_url=base_url,
        headers=dict(headers or {}),
        timeout=httpx.Timeout(120),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        trust_env=False,
    )
