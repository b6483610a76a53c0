"""An AgentOS whose models fail as planned and write down each of their attempts, with why it was made.

`server.py --attempts FILE` serves it, on the newest agno. Nothing here looks at spans: agno's own calls tell a model
whether it answers anew or tries again, and its place in a `FallbackConfig` tells whose place it takes.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections import Counter
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

FIRST, RETRY, FALLBACK = "first", "retry", "fallback"
"""Why an attempt was made."""

COMPONENTS = {
    "agents": (
        "retrying",
        "backing-off",
        "falling-back",
        "rate-limited",
        "tool-loop",
        "remembering",
        "slow-to-remember",
        "parsing",
        "polishing",
        "reasoning",
        "summing-up",
        "starting-over",
    ),
    "teams": ("desk",),
    "workflows": ("flow",),
}


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt, as its model saw it.

    `root` and `agent` are labels. `role` is what the model is for, '' for the run's own. `instead_of` is the model that
    failed before a fallback, '' otherwise. An attempt that failed, or was broken off, has no tokens.
    """

    root: str
    agent: str
    role: str
    provider: str
    model: str
    why: str
    instead_of: str
    failed: bool
    seconds: float
    input: int = 0
    output: int = 0
    cached: int = 0


def read(record: Path) -> list[Attempt]:
    """Return all attempts that were written down."""
    return [Attempt(**json.loads(line)) for line in record.read_text(encoding="utf-8").splitlines()]


class Verdict(BaseModel):
    """What the parser model makes of an answer."""

    good: bool


def build(db: Any, record: Path, scripted: ModuleType) -> Any:
    """Build the AgentOS; `scripted` is the module of the scripted model. Called once a process: tracing is global."""
    from agno.agent import Agent
    from agno.memory import MemoryManager
    from agno.models.fallback import FallbackConfig
    from agno.os import AgentOS
    from agno.reasoning.manager import ReasoningManager
    from agno.session.summary import SessionSummaryManager
    from agno.team import Team
    from agno.workflow.step import Step
    from agno.workflow.workflow import Workflow

    sheet = record.open("a", encoding="utf-8", buffering=1)
    opening: ContextVar[str] = ContextVar("opening", default=FIRST)  # why the next call is made, if it is no retry
    tries: ContextVar[int] = ContextVar("tries", default=0)  # of the call in hand
    calls: Counter[int] = Counter()
    asked: set[tuple[str, int]] = set()
    numbers = itertools.count()

    @dataclasses.dataclass
    class RecordedModel(scripted.ScriptedModel):  # type: ignore[name-defined,misc]
        """Fails by its `pattern`, again and again: `.` answers, `x` is a server error, `r` a rate limit."""

        root: str = ""
        agent: str = ""
        role: str = ""
        instead_of: str = ""
        pattern: str = "."
        number: int = dataclasses.field(default_factory=lambda: next(numbers))  # a copy of the model keeps it

        async def aresponse(self, *args: Any, **more: Any) -> Any:
            opening.set(self._why(more))
            return await super().aresponse(*args, **more)

        async def aresponse_stream(self, *args: Any, **more: Any) -> Any:
            opening.set(self._why(more))
            async for event in super().aresponse_stream(*args, **more):
                yield event

        def _why(self, more: Any) -> str:
            """Why the model is asked: an agent with `retries` of its own asks anew within one run."""
            if self.instead_of:
                return FALLBACK
            run = (more["run_response"].run_id if more.get("run_response") else "", self.number)
            again = bool(run[0]) and run in asked
            asked.add(run)
            return RETRY if again else FIRST

        async def _ainvoke_with_retry(self, **more: Any) -> Any:
            tries.set(0)
            return await super()._ainvoke_with_retry(**more)

        async def _ainvoke_stream_with_retry(self, **more: Any) -> Any:
            tries.set(0)
            async for chunk in super()._ainvoke_stream_with_retry(**more):
                yield chunk

        async def acall(self, messages: Any, *, share: float = 1.0) -> Any:
            why = RETRY if tries.get() else opening.get()
            tries.set(tries.get() + 1)
            opening.set(FIRST)
            outcome = self.pattern[calls[self.number] % len(self.pattern)]
            calls[self.number] += 1
            began = time.perf_counter()
            tokens: dict[str, int] = {}
            failed = False
            try:
                reply = await super().acall(messages, share=share)
                if outcome != ".":
                    failed = True
                    status, text = (429, "Rate limit reached") if outcome == "r" else (503, "overloaded")
                    raise scripted.ModelProviderError(text, status, model_name=self.name, model_id=self.id)
                used = reply.usage
                tokens = {"input": used.input, "output": used.output, "cached": used.cache_read}
                return reply
            finally:  # memories are broken off where their run fails
                self._write(why, time.perf_counter() - began, failed=failed, **tokens)

        def _write(self, why: str, seconds: float, *, failed: bool, **tokens: int) -> None:
            instead_of = self.instead_of if why == FALLBACK else ""
            names = (self.root, self.agent, self.role, self.provider.lower(), self.id)
            attempt = Attempt(*names, why, instead_of, failed, round(seconds, 6), **tokens)
            sheet.write(json.dumps(dataclasses.asdict(attempt)) + "\n")

    # agno asks each vendor's module whether it knows the model, and the vendors' packages are not installed.
    ReasoningManager._detect_model_type_uncached = lambda *_: "deepseek"

    def says(text: str, *rounds: str, delay: float = 0.01) -> Any:
        """Call the tool `look` with each of `rounds`, then answer."""

        def script(messages: Any) -> Any:
            turn = scripted.turn_of(messages)
            wanted = (scripted.ToolCall("look", {"where": rounds[turn]}),) if turn < len(rounds) else ()
            answer = "" if wanted else text
            usage = scripted.usage_for(messages, answer, cached=0.4)
            return scripted.Reply(answer, wanted, usage, delay=delay)

        return script

    vendors = {"gpt": ("OpenAIChat", "OpenAI"), "cla": ("Claude", "Anthropic"), "gem": ("Gemini", "Google")}
    vendors["dee"] = ("DeepSeek", "DeepSeek")
    answer = says("Here is what I found, in a few words.")

    def model(owner: str, identifier: str, pattern: str = ".", **more: Any) -> Any:
        """A model of the agent `owner`; `Root/Agent` where it is not the outermost run itself."""
        name, provider = vendors[identifier[:3]]
        root, _, agent = owner.replace(" ", "_").rpartition("/")
        more = {"script": answer, "delay_between_retries": 0.02, **more}
        names = {"id": identifier, "name": name, "provider": provider}
        return RecordedModel(**names, pattern=pattern, root=root or agent, agent=agent, **more)

    def instead(owner: str, of: str, *chain: tuple[str, str], **more: Any) -> list[Any]:
        """Fallback models for the model `of`, each with its pattern; each takes the place of the one before."""
        befores = (of, *(identifier for identifier, _ in chain))
        return [
            model(owner, identifier, pattern, instead_of=before, **more)
            for before, (identifier, pattern) in zip(befores, chain, strict=False)
        ]

    def look(where: str) -> str:
        """Look somewhere."""
        return f"Nothing {where}."

    def agent(identifier: str, name: str, main: Any, **more: Any) -> Any:
        return Agent(id=identifier, name=name, model=main, db=db, telemetry=False, **more)

    def falling_back(identifier: str, owner: str, **more: Any) -> Any:
        chain = instead(owner, "gpt-5.4", ("claude-sonnet-4-5", ".x"), ("gemini-2.5-flash", "."))
        main = model(owner, "gpt-5.4", ".xx.x", retries=1)
        return agent(identifier, owner.rpartition("/")[2], main, fallback_config=FallbackConfig(on_error=chain), **more)

    def memories(owner: str, pattern: str, **more: Any) -> Any:
        return MemoryManager(model=model(owner, "gpt-5.4-nano", pattern, role="memory", **more), db=db)

    # The models of a run with memories take longer than it takes to look these up: both run at the same time.
    patient = says("Here is what I found, after a while.", delay=0.2)
    looped = says("Found.", "here", "there")
    agents = [
        agent("retrying", "Retrying", model("Retrying", "gpt-5.4-mini", ".x.xx.xxx", retries=2)),
        agent(
            "backing-off",
            "Backing Off",
            model("Backing Off", "claude-sonnet-4-5", "x.xx.", retries=2, exponential_backoff=True),
        ),
        falling_back("falling-back", "Falling Back"),
        agent(
            "rate-limited",
            "Rate Limited",
            model("Rate Limited", "gpt-5.4", ".rx.r"),
            fallback_config=FallbackConfig(
                on_rate_limit=instead("Rate Limited", "gpt-5.4", ("gpt-5.4-mini", ".x"), ("gemini-2.5-flash", ".")),
                on_error=instead("Rate Limited", "gpt-5.4", ("claude-sonnet-4-5", ".")),
            ),
        ),
        agent(
            "tool-loop",
            "Tool Loop",
            model("Tool Loop", "gpt-5.4", "..x.x", script=looped, retries=0),
            fallback_config=FallbackConfig(
                on_error=instead("Tool Loop", "gpt-5.4", ("claude-sonnet-4-5", "..x."), script=looped, retries=1)
            ),
            tools=[look],
        ),
        agent(
            "remembering",
            "Remembering",
            model("Remembering", "gpt-5.4-mini", ".x..xx", script=patient, retries=1),
            memory_manager=memories("Remembering", ".x.xx", retries=1),
            update_memory_on_run=True,
        ),
        agent(
            "slow-to-remember",
            "Slow To Remember",
            model("Slow To Remember", "gpt-5.4", "x.xx.", script=patient),
            memory_manager=memories("Slow To Remember", ".x", script=says("Noted.", delay=0.5)),
            update_memory_on_run=True,
            fallback_config=FallbackConfig(on_error=instead("Slow To Remember", "gpt-5.4", ("gemini-2.5-flash", ".x"))),
        ),
        agent(
            "parsing",
            "Parsing",
            model("Parsing", "claude-sonnet-4-5", ".x", retries=1),
            parser_model=model(
                "Parsing", "gemini-2.5-flash", ".xx.x", role="parser", script=says('{"good": true}'), retries=1
            ),
            output_schema=Verdict,
        ),
        agent(
            "polishing",
            "Polishing",
            model("Polishing", "gpt-5.4", "..x"),
            output_model=model("Polishing", "claude-sonnet-4-5", ".x.", role="output", retries=1),
            fallback_config=FallbackConfig(on_error=instead("Polishing", "gpt-5.4", ("gpt-5.4-mini", "."))),
        ),
        agent(
            "reasoning",
            "Reasoning",
            model("Reasoning", "gpt-5.4", ".x", retries=1),
            # It has an agent of its own.
            reasoning_model=model("Reasoning/Agent", "deepseek-reasoner", "..x", role="reasoning"),
        ),
        agent(
            "summing-up",
            "Summing Up",
            model("Summing Up", "gpt-5.4", ".x"),
            session_summary_manager=SessionSummaryManager(
                model=model("Summing Up", "gpt-5.4-nano", ".x", role="session_summary", retries=1)
            ),
            enable_session_summaries=True,
        ),
        agent(
            "starting-over",
            "Starting Over",
            model("Starting Over", "gpt-5.4", "x."),
            retries=1,
            delay_between_retries=0,
        ),
    ]
    ask = says("Done.")

    def delegating(messages: Any) -> Any:
        reply = ask(messages)
        if scripted.turn_of(messages):
            return reply
        task = scripted.ToolCall("delegate_task_to_member", {"member_id": "clerk", "task": "Do your part."})
        return dataclasses.replace(reply, text="", tool_calls=(task,))

    clerk = agent("clerk", "Clerk", model("Desk/Clerk", "claude-sonnet-4-5", ".x", retries=1), role="Does it")
    team = Team(
        id="desk",
        name="Desk",
        model=model("Desk", "gpt-5.4", "..x.", script=delegating),
        fallback_config=FallbackConfig(on_error=instead("Desk", "gpt-5.4", ("gpt-5.4-mini", "."), script=delegating)),
        members=[clerk],
        db=db,
        telemetry=False,
    )
    flow = Workflow(
        id="flow",
        name="Flow",
        db=db,
        telemetry=False,
        steps=[Step(name="Ask", agent=falling_back("flowing", "Flow/Flowing"), max_retries=0)],
    )
    return AgentOS(
        id="attempts",
        name="Attempts",
        agents=agents,
        teams=[team],
        workflows=[flow],
        db=db,
        tracing=True,
        telemetry=False,
    )
