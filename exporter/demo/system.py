"""The AgentOS of the demo: a small company's agents, on models of several vendors that all play a script.

Runs in a process of its own, users included: AgentOS's SQL holds its event loop, and uvicorn's logging is global.

    python -m exporter.demo.system --port 7777 --folder SCRATCH --rate 1

Prints `ready` once its first users were served.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

# Read whenever an agent is built. The flags below say the same; this holds for what agno builds itself.
os.environ["AGNO_TELEMETRY"] = "false"

import uvicorn
from agno.agent import Agent
from agno.db.sqlite import SqliteDb
from agno.exceptions import ModelProviderError, ModelRateLimitError
from agno.guardrails import PromptInjectionGuardrail
from agno.job_queue.config import QueueConfig
from agno.knowledge.knowledge import Knowledge
from agno.models.fallback import FallbackConfig
from agno.models.message import Message
from agno.os import AgentOS
from agno.session.summary import SessionSummaryManager
from agno.team import Team
from agno.workflow.parallel import Parallel
from agno.workflow.step import Step
from agno.workflow.types import StepInput, StepOutput
from agno.workflow.workflow import Workflow

from exporter.demo import traffic, waiting
from exporter.demo.scripted import Reply, Script, ScriptedModel, ToolCall, Usage, prompt_of, random_for, turn_of

# --- Models ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outage:
    """Some seconds of a cycle in which a vendor refuses a share of the calls."""

    provider: str
    begin: float
    end: float
    share: float
    error: type[ModelProviderError]
    message: str
    status: int


CYCLE: Final = 240.0
OUTAGES: Final = (
    Outage("Anthropic", 20, 40, 0.8, ModelProviderError, "Overloaded", 529),
    Outage("OpenAI", 110, 125, 0.6, ModelRateLimitError, "Rate limit reached for requests per minute", 429),
    Outage("Google", 180, 200, 0.8, ModelProviderError, "The service is currently unavailable", 503),
)
RARE: Final = 0.004
"""Share of calls that fail at any time."""
_STARTED: Final = time.monotonic()


@dataclass
class DemoModel(ScriptedModel):
    """A scripted model whose vendor fails for some minutes now and then."""

    async def acall(self, messages: Sequence[Message], *, share: float = 1.0) -> Reply:
        """Answer as scripted, unless the vendor is having an outage."""
        reply = await super().acall(messages, share=share)
        now = (time.monotonic() - _STARTED) % CYCLE
        for outage in OUTAGES:
            concerned = outage.provider == self.provider and outage.begin <= now < outage.end
            if concerned and _CHANCE.random() < outage.share:
                raise outage.error(outage.message, outage.status, model_name=self.name, model_id=self.id)
        if _CHANCE.random() < RARE:
            raise ModelProviderError("Internal server error", 500, model_name=self.name, model_id=self.id)
        return reply


_CHANCE: Final = Random()


def openai(model: str, script: Script) -> DemoModel:
    """A model of OpenAI."""
    return DemoModel(id=model, name="OpenAIChat", provider="OpenAI", script=script)


def claude(script: Script) -> DemoModel:
    """A model of Anthropic."""
    return DemoModel(id="claude-sonnet-4-5", name="Claude", provider="Anthropic", script=script)


def gemini(script: Script) -> DemoModel:
    """A model of Google."""
    return DemoModel(id="gemini-2.5-flash", name="Gemini", provider="Google", script=script)


def ollama(script: Script) -> DemoModel:
    """A model on the user's own machine, which is called once more after a failure."""
    return DemoModel(id="llama3.2:3b", name="Ollama", provider="Ollama", script=script, retries=1)


def acme(model: str, script: Script) -> DemoModel:
    """A company's own model with its own class: its provider is unknown, and only the price file has its price."""
    return DemoModel(id=model, name="AcmeModel", provider="Acme", script=script)


# --- Scripts ---------------------------------------------------------------------------------------------------------

Round = Callable[[Random, str], tuple[ToolCall, ...]]


@dataclass(frozen=True)
class Habits:
    """How a model talks: the sizes and times that end up in its spans."""

    seconds: float
    """median of one call"""
    system: int
    """tokens of instructions and tool schemas, sent with every call"""
    words: int
    """of an answer"""
    cached: float = 0.0
    """share of the instructions that is in a prompt cache"""
    reasoning: int = 0
    exclusive: bool = False
    """input counts leave cached tokens out, as Anthropic's do"""
    silent: float = 0.0
    """share of calls that report no token counts"""
    chokes_on: str = ""
    """a word in a prompt on which every call fails"""
    rounds: tuple[Round, ...] = ()
    """tools to call before the answer"""


def talks(habits: Habits) -> Script:
    """A script with these habits."""

    def script(messages: Sequence[Message]) -> Reply:
        random, turn = random_for(messages), turn_of(messages)
        if habits.chokes_on and habits.chokes_on in prompt_of(messages):
            return Reply(error="the model could not process this request", error_status=500, delay=0.3)
        calls = habits.rounds[turn](random, prompt_of(messages)) if turn < len(habits.rounds) else ()
        text = "" if calls else _prose(random, habits.words)
        usage = None if random.random() < habits.silent else _usage(habits, messages, text, calls, random)
        delay = habits.seconds * random.lognormvariate(0.0, 0.5)
        return Reply(text, calls, usage, delay=min(delay, 20.0))

    return script


def _usage(
    habits: Habits, messages: Sequence[Message], text: str, calls: tuple[ToolCall, ...], random: Random
) -> Usage:
    size = sum(len(str(message.content or "")) for message in messages) // 4
    cached = int(habits.system * habits.cached) if random.random() < 0.9 else 0  # noqa: PLR2004 - now and then it is cold
    written = int(habits.system * habits.cached) - cached if habits.exclusive else 0
    thought = int(habits.reasoning * random.lognormvariate(0.0, 0.6)) if habits.reasoning else 0
    prompt = habits.system + size
    return Usage(
        input=prompt - cached - written if habits.exclusive else prompt,
        output=math.ceil(len(text) / 4) + 30 * len(calls) + thought + random.randrange(8, 40),
        cache_read=cached,
        cache_write=written,
        reasoning=thought,
    )


_SENTENCES: Final = (
    "Here is what I found.",
    "The figures of the last quarter point the same way.",
    "Your parcel left our warehouse this morning.",
    "Two of the three sources agree on this.",
    "Please let me know if that helps.",
    "The change is small, but it holds in every region.",
)


def _prose(random: Random, words: int) -> str:
    text = random.choice(_SENTENCES)
    while text.count(" ") < words:
        text += " " + random.choice(_SENTENCES)
    return text


def _one(tool: str, **arguments: object) -> Round:
    """Call one tool; the argument `text` is the prompt."""

    def calls(_: Random, prompt: str) -> tuple[ToolCall, ...]:
        return (ToolCall(tool, {"text": prompt[:60], **arguments}),)

    return calls


def _side_by_side(random: Random, prompt: str) -> tuple[ToolCall, ...]:
    queries = tuple(ToolCall("run_query", {"text": f"{prompt[:40]} ({n})"}) for n in range(random.randrange(1, 4)))
    return (*queries, ToolCall("web_search", {"text": prompt[:60]}))


def _delegate(*members: str) -> Round:
    def calls(_: Random, prompt: str) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall("delegate_task_to_member", {"member_id": member, "task": f"{prompt[:60]}: your part, {member}"})
            for member in members
        )

    return calls


_IN_TURN: Final = (_delegate("searcher"), _delegate("writer"))


# --- Tools -----------------------------------------------------------------------------------------------------------


async def find_order(text: str) -> str:
    """Find an order by its number."""
    await asyncio.sleep(0.05)
    if "404" in text:
        raise LookupError("no such order")  # a bare message, as most code raises
    return "Order found: shipped, 2 items, arrives tomorrow."


async def refund(text: str) -> str:
    """Refund an order."""
    await asyncio.sleep(0.15)
    if "404" in text or _CHANCE.random() < 0.1:  # noqa: PLR2004
        raise RuntimeError("PaymentError: the card was declined")
    return "Refunded."


async def run_query(text: str) -> str:
    """Run a query on the data warehouse."""
    await asyncio.sleep(0.1 + _CHANCE.expovariate(4))
    if "all regions" in text and _CHANCE.random() < 0.5:  # noqa: PLR2004
        raise RuntimeError("QueryTimeoutError: canceled after 5 seconds")
    return "12 rows: " + ", ".join(str(_CHANCE.randrange(1000)) for _ in range(12))


async def web_search(text: str) -> str:
    """Search the web (made up, as everything here)."""
    await asyncio.sleep(0.2)
    return f"Three results for {text}."


# --- The company -----------------------------------------------------------------------------------------------------


def build(db: SqliteDb, queue: QueueConfig) -> AgentOS:
    """The AgentOS. Called once a process: tracing is global."""
    agent = functools.partial(_agent, db)

    assistant = agent(
        "assistant",
        "Assistant",
        openai("gpt-5.4-mini", talks(Habits(0.7, 1400, 50, cached=0.7))),
        pre_hooks=[PromptInjectionGuardrail()],
    )
    order_desk = agent(
        "order-desk",
        "Order Desk",
        openai("gpt-5.4", talks(Habits(0.9, 2600, 40, cached=0.8, reasoning=120, rounds=(_order_round,)))),
        tools=[find_order, refund],
    )
    analyst = agent(
        "data-analyst",
        "Data Analyst",
        claude(talks(Habits(1.6, 5200, 90, cached=0.9, exclusive=True, rounds=(_side_by_side,)))),
        tools=[run_query, web_search],
        session_summary_manager=SessionSummaryManager(model=openai("gpt-5.4-nano", talks(Habits(0.4, 400, 30)))),
        enable_session_summaries=True,
    )
    translator = agent(
        "translator",
        "Translator",
        gemini(talks(Habits(0.5, 300, 60, reasoning=80, chokes_on="manual"))),
        fallback_config=FallbackConfig(on_error=[openai("gpt-5.4-mini", talks(Habits(0.8, 300, 60)))]),
    )
    summarizer = agent(
        "summarizer", "Summarizer", ollama(talks(Habits(1.2, 500, 50, silent=0.15, chokes_on="archive")))
    )
    triage = agent("triage", "Triage", acme("acme-router-7b", talks(Habits(0.15, 220, 6))))
    moderator = agent("moderator", "Moderator", acme("acme-guard-1b", talks(Habits(0.1, 160, 4))))
    payouts = agent(
        "payouts",
        "Payouts",
        openai("gpt-5.4-mini", talks(Habits(0.4, 600, 15, cached=0.5, rounds=(_one("pay_out"),)))),
        tools=[waiting.pay_out],
    )
    return AgentOS(
        id="demo",
        name="Demo",
        agents=[assistant, order_desk, analyst, translator, summarizer, triage, moderator, payouts],
        teams=[_research(db)],
        workflows=[_report(db, analyst, translator, summarizer)],
        knowledge=[Knowledge(name="Handbook", contents_db=db)],
        queue=queue,
        db=db,
        tracing=True,
        telemetry=False,
    )


def _agent(db: SqliteDb, identifier: str, name: str, model: DemoModel, **more: Any) -> Agent:  # noqa: ANN401 - Agent's
    return Agent(id=identifier, name=name, model=model, db=db, telemetry=False, **more)


def _research(db: SqliteDb) -> Team:
    agent = functools.partial(_agent, db)
    searcher = agent(
        "searcher",
        "Searcher",
        openai("gpt-5.4-mini", talks(Habits(0.6, 900, 30, cached=0.5, rounds=(_one("web_search"),)))),
        tools=[web_search],
        role="Searches",
    )
    writer = agent("writer", "Writer", claude(talks(Habits(2.0, 1800, 120, cached=0.8, exclusive=True))), role="Writes")
    return Team(
        id="research",
        name="Research Team",
        model=openai("gpt-5.4", talks(Habits(0.8, 1900, 40, cached=0.6, rounds=_IN_TURN))),
        members=[searcher, writer],
        db=db,
        telemetry=False,
    )


def _report(db: SqliteDb, analyst: Agent, translator: Agent, summarizer: Agent) -> Workflow:
    def publish(step_input: StepInput) -> StepOutput:
        """Workflow step without a model."""
        return StepOutput(content=f"Published: {str(step_input.previous_step_content)[:80]}")

    return Workflow(
        id="daily-report",
        name="Daily Report",
        description="Analyse, then translate and summarize at once, then publish.",
        db=db,
        telemetry=False,
        steps=[
            Step(name="Analyse", agent=analyst, max_retries=1),
            Parallel(
                # Its annotation says lists of steps; its documentation, and agno itself, give it steps.
                Step(name="Translate", agent=translator, max_retries=1),  # type: ignore[arg-type]
                Step(name="Summarize", agent=summarizer, max_retries=1),  # type: ignore[arg-type]
                name="Both at once",
            ),
            Step(name="Publish", executor=publish),
        ],
    )


def _order_round(_: Random, prompt: str) -> tuple[ToolCall, ...]:
    call = ToolCall("find_order", {"text": prompt[:60]})
    return (call, ToolCall("refund", {"text": prompt[:60]})) if "refund" in prompt.lower() else (call,)


def _say_ready() -> None:
    print("ready", flush=True)


class _Server(uvicorn.Server):
    """Starts the users once it serves, and prints `ready` once some of them have been served."""

    def __init__(self, config: uvicorn.Config, rate: float, db: SqliteDb, queue: QueueConfig) -> None:
        super().__init__(config)
        self._rate, self._db, self._queue = rate, db, queue
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            url = f"http://127.0.0.1:{self.config.port}"
            self._tasks = (
                asyncio.create_task(traffic.keep_up(url, self._rate, _say_ready)),
                asyncio.create_task(waiting.keep_up(url, self._db, self._queue)),
            )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for task in self._tasks:
            task.cancel()
        await super().shutdown(sockets)


def main() -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(description="The AgentOS of the demo")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; in a container 0.0.0.0")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    options = parser.parse_args()
    db, queue = SqliteDb(db_file=str(options.folder / "agno.db"), id="demo-db"), waiting.queue()
    app = build(db, queue).get_app()
    config = uvicorn.Config(app, host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=1)
    _Server(config, options.rate, db, queue).run()


if __name__ == "__main__":
    main()
