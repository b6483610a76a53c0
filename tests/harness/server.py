"""A real AgentOS that needs no key and no network, to test against: run it with the Python of any venv that has agno.

    python tests/harness/server.py --port 7777 --db sqlite:/tmp/agno.db

It has agents, teams and workflows for each kind of span agno writes, all on scripted models. `ready http://…` is
printed once it serves. A prompt may hold `sleep=SECONDS` (of the model, per call), `words=N` (length of the answer)
and, for `failing-model`, `fail=NAME` (of one of `FAILURES`).
The components' ids are listed in `COMPONENTS`; `load.py` drives them.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import importlib.util
import inspect
import json
import os
import re
import sys
import time
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

# Before agno is imported, whenever it reads them.
os.environ["AGNO_TELEMETRY"] = "false"
os.environ.setdefault("AGNO_MONITOR", "false")

COMPONENTS = {
    "agents": (
        "plain",
        "tools",
        "parallel-tools",
        "failing-tool",
        "failing-model",
        "slow",
        "hooked",
        "nesting",
        "vendor",
        "claude",
        "vertex",
        "gemini",
        "no-usage",
        "home-grown",
        "nameless",
        "local",
        "thinking",
        "caching",
        "billed",
        "xai",
        "confirming",
        "guarded",
    ),
    "teams": ("research", "newsroom", "guarded-team"),
    "workflows": ("report", "pipeline", "failing"),
}


FAILURES = {
    "rate_limit": ("Rate limit reached for gpt-5.4 in organization org-1 on tokens per min (TPM): Limit 30000", 429),
    "timeout": ("Request timed out.", 502),
    "auth": ("Incorrect API key provided: sk-1***2. You can find your API key at https://platform.example.com", 401),
    "context_window": ("This model's maximum context length is 8192 tokens. However, you requested 9001 tokens", 400),
    "content_filter": ("The response was filtered due to Azure OpenAI's content management policy", 400),
    "connection": ("Connection error.", 502),
    "server": ("the provider is overloaded", 503),
    "guardrail": ("{'error': 'Violated guardrail policy'}", 400),
    "bad_request": ("The model `gpt-9` does not exist or you do not have access to it.", 404),
    "other": ("'NoneType' object has no attribute 'choices'", 502),
}
"""Why a call of `failing-model` fails, by the name of its class: what the vendor says, and the HTTP status."""


def guards() -> dict[str, list[Any]]:
    """Return hooks of an agent or team: guardrails of agno, and some that act on words; none where agno has none.

    `off topic` in a prompt and `competitor` in an answer are blocked with triggers of agno, `forbidden` in a prompt
    with one of its own.
    """
    if importlib.util.find_spec("agno.guardrails") is None:
        return {}
    from agno.exceptions import CheckTrigger, InputCheckError, OutputCheckError
    from agno.guardrails import BaseGuardrail, PIIDetectionGuardrail, PromptInjectionGuardrail

    class Words(BaseGuardrail):
        """Blocks prompts by a word."""

        def __init__(self, word: str, trigger: Any) -> None:
            self.word, self.trigger = word, trigger

        def check(self, run_input: Any) -> None:
            if self.word in run_input.input_content_string():
                raise InputCheckError(f"I will not talk about {self.word}", check_trigger=self.trigger)

        async def async_check(self, run_input: Any) -> None:
            self.check(run_input)

    def no_competitor(run_output: Any) -> None:
        if "competitor" in str(run_output.content):
            raise OutputCheckError("the answer names a competitor", check_trigger=CheckTrigger.OUTPUT_NOT_ALLOWED)

    own = [Words("off topic", CheckTrigger.OFF_TOPIC), Words("forbidden", "my_rule")]
    return {
        "pre_hooks": [PromptInjectionGuardrail(), PIIDetectionGuardrail(), *own],
        "post_hooks": [no_competitor],
    }


def load_scripted() -> ModuleType:
    """Load the scripted model by its path: older venvs have no `exporter` package, nor its dependencies."""
    return load(Path(__file__).resolve().parents[2] / "exporter" / "demo" / "scripted.py")


def load(path: Path) -> ModuleType:
    """Load a module by its path.

    Raises:
        ImportError: if there is none.

    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their own module up there
    spec.loader.exec_module(module)
    return module


def open_database(url: str, database_id: str, schema: str | None = None) -> Any:
    """Open agno's database for `sqlite:PATH`, `postgres:URL` or `mysql:URL`, with or without `async-` in front.

    On MySQL and MariaDB, where a schema is a database, agno's tables go into the one that the URL names.

    Raises:
        ValueError: for any other kind.
    """
    kind, _, rest = url.partition(":")
    if kind == "sqlite":
        from agno.db.sqlite import SqliteDb

        return SqliteDb(db_file=rest, id=database_id)
    if kind == "async-sqlite":
        from agno.db.sqlite import AsyncSqliteDb

        return AsyncSqliteDb(db_file=rest, id=database_id)
    if kind in {"postgres", "async-postgres"}:
        rest = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql+psycopg://", rest)
        if kind == "postgres":
            from agno.db.postgres import PostgresDb

            return PostgresDb(db_url=rest, id=database_id, db_schema=schema)
        from agno.db.postgres import AsyncPostgresDb

        return AsyncPostgresDb(db_url=rest, id=database_id, db_schema=schema)
    if kind in {"mysql", "async-mysql"}:
        driver = "pymysql" if kind == "mysql" else "asyncmy"
        rest = re.sub(r"^(mysql|mariadb)(\+\w+)?://", f"mysql+{driver}://", rest)
        schema = schema or urlsplit(rest).path.strip("/")
        reflect_json()
        if kind == "mysql":
            from agno.db.mysql import MySQLDb

            return MySQLDb(db_url=rest, id=database_id, db_schema=schema)
        from agno.db.mysql import AsyncMySQLDb

        return AsyncMySQLDb(db_url=rest, id=database_id, db_schema=schema)
    raise ValueError(f"unknown kind of database: {url}")


def reflect_json() -> None:
    """Let MariaDB pass for MySQL: its JSON is LONGTEXT, so agno 3.1.10 writes no span into tables that it finds there.

    ("dict can not be used as parameter": only the process that has made the tables knows their types.)
    """
    from sqlalchemy import JSON, Table, event
    from sqlalchemy.dialects.mysql import LONGTEXT

    @event.listens_for(Table, "column_reflect")
    def reflected(_inspector: Any, _table: Any, column: Any) -> None:
        if isinstance(column["type"], LONGTEXT):
            column["type"] = JSON()


def build(db: Any, second_db: Any = None, more: dict[str, Any] | None = None) -> Any:
    """Build the AgentOS, with `more` arguments. Called once a process: tracing is global."""
    scripted = load_scripted()
    from agno.agent import Agent
    from agno.os import AgentOS
    from agno.team import Team
    from agno.tools import tool
    from agno.workflow.parallel import Parallel
    from agno.workflow.step import Step, StepInput, StepOutput
    from agno.workflow.workflow import Workflow
    from opentelemetry import trace

    reply_type, call_type, usage_for = scripted.Reply, scripted.ToolCall, scripted.usage_for

    def number_in(messages: Any, name: str, default: float) -> float:
        found = re.search(rf"\b{name}=(\d+(?:\.\d+)?)", scripted.prompt_of(messages))
        return float(found[1]) if found else default

    def answer(messages: Any, text: str = "Here is what I found.", **usage: Any) -> Any:
        text += " word" * int(number_in(messages, "words", 12))
        return reply_type(text, usage=usage_for(messages, text, **usage), delay=number_in(messages, "sleep", 0.0))

    def echoes(messages: Any) -> Any:
        return answer(messages, f"You said: {scripted.prompt_of(messages)}.")

    def slowly(messages: Any) -> Any:
        reply = answer(messages)
        return dataclasses.replace(reply, delay=reply.delay or 0.5)

    def calls_tools(*rounds: tuple[Any, ...]) -> Any:
        """Ask for the tools of each round, then answer."""

        def script(messages: Any) -> Any:
            turn = scripted.turn_of(messages)
            if turn >= len(rounds):
                return answer(messages)
            usage = usage_for(messages, "tool", cached=0.5)
            return reply_type(tool_calls=rounds[turn], usage=usage, delay=number_in(messages, "sleep", 0.0))

        return script

    def fails(messages: Any) -> Any:
        named = re.search(r"\bfail=(\w+)", scripted.prompt_of(messages))
        text, status = FAILURES[named[1] if named else "server"]
        return reply_type(error=text, error_status=status)

    class VendorInstrumentedModel(scripted.ScriptedModel):  # type: ignore[name-defined,misc]
        """As with a vendor's own instrumentor: a second LLM span, with the same tokens, inside agno's."""

        async def acall(self, messages: Any, *, share: float = 1.0) -> Any:
            tracer = trace.get_tracer("openinference.instrumentation.openai")
            with tracer.start_as_current_span("ChatCompletion") as span:
                reply = await super().acall(messages, share=share)
                span.set_attributes(
                    {
                        "openinference.span.kind": "LLM",
                        "llm.model_name": self.id,
                        "llm.provider": "openai",
                        "llm.token_count.prompt": reply.usage.input,
                        "llm.token_count.completion": reply.usage.output,
                        "llm.token_count.total": reply.usage.input + reply.usage.output,
                    }
                )
                span.set_status(trace.StatusCode.OK)
                return reply

    class ReasoningModel(scripted.ScriptedModel):  # type: ignore[name-defined,misc]
        """As with an instrumentor that reports reasoning tokens, which agno's own leaves out."""

        async def acall(self, messages: Any, *, share: float = 1.0) -> Any:
            reply = await super().acall(messages, share=share)
            name = "llm.token_count.completion_details.reasoning"
            trace.get_current_span().set_attribute(name, reply.usage.reasoning)
            return reply

    def billed(messages: Any) -> Any:
        """As a gateway that says what a call cost."""
        reply = answer(messages)
        usage = dataclasses.replace(reply.usage, cost=round(reply.usage.output * 0.000_001_3, 9))
        return dataclasses.replace(reply, usage=usage)

    def caches(messages: Any) -> Any:
        reply = answer(messages, cached=0.5)
        return dataclasses.replace(reply, usage=dataclasses.replace(reply.usage, cache_write=150))

    def openai(script: Any = answer, model_id: str = "gpt-5.4-mini") -> Any:
        return scripted.ScriptedModel(id=model_id, name="OpenAIChat", provider="OpenAI", script=script)

    def claude(script: Any = answer) -> Any:
        return scripted.ScriptedModel(id="claude-sonnet-5-5", name="Claude", provider="Anthropic", script=script)

    def weather(city: str) -> str:
        """Return the weather in a city."""
        time.sleep(0.002)
        return f"It is sunny in {city}."

    async def search(query: str) -> str:
        """Search the web."""
        await asyncio.sleep(0.005)
        return f"Three results for {query}."

    def lookup(name: str) -> str:
        """Look a person up. Fails with a bare message, as much code does."""
        raise ValueError(f"{name}: not found")

    @tool(requires_confirmation=True)
    def send(to: str) -> str:
        """Send a message, once a person has confirmed it."""
        return f"sent to {to}"

    async def query(statement: str) -> str:
        """Run a query. Fails with a message that names its type."""
        raise RuntimeError("DatabaseError: no such table")

    def agent(identifier: str, name: str | None, model: Any, **more: Any) -> Any:
        return Agent(id=identifier, name=name, model=model, db=db, telemetry=False, **more)

    inner = agent("inner", "Inner Agent", claude())
    auditor = agent("auditor", "Auditor", openai(model_id="gpt-5.4-nano"))

    async def ask_inner(question: str) -> str:
        """Ask another agent."""
        return str((await inner.arun(question)).content)

    async def audit(run_output: Any) -> None:
        """Post-hook: another agent reads the answer."""
        await auditor.arun(f"Check: {run_output.content}")

    async def write(step_input: StepInput) -> StepOutput:
        """Workflow step that calls an agent itself."""
        return StepOutput(content=str((await inner.arun(str(step_input.input))).content))

    def tidy(step_input: StepInput) -> StepOutput:
        """Workflow step without an agent."""
        return StepOutput(content=f"Tidy: {step_input.input}")

    weather_call = call_type("weather", {"city": "Paris"})
    search_call = call_type("search", {"query": "agents"})
    agents = [
        agent("plain", "Plain", openai()),
        agent("tools", "Tool User", openai(calls_tools((weather_call,), (search_call,))), tools=[weather, search]),
        agent(
            "parallel-tools",
            "Parallel Tool User",
            claude(calls_tools((weather_call, search_call, call_type("weather", {"city": "Rome"})))),
            tools=[weather, search],
        ),
        agent(
            "failing-tool",
            "Failing-Tool",
            openai(calls_tools((call_type("lookup", {"name": "alice"}), call_type("query", {"statement": "SELECT"})))),
            tools=[lookup, query],
        ),
        agent("failing-model", "Failing Model", openai(fails)),
        agent("slow", "Slow", openai(slowly)),
        agent("hooked", "Hooked", openai(), post_hooks=[audit]),
        agent(
            "nesting",
            "Nesting Agent-v1.2",
            openai(calls_tools((call_type("ask_inner", {"question": "Why?"}),))),
            tools=[ask_inner],
        ),
        agent(
            "vendor",
            "Vendor Instrumented",
            VendorInstrumentedModel(id="gpt-5.4-mini", name="OpenAIChat", provider="OpenAI", script=answer),
        ),
        agent("claude", "Claude Agent", claude(lambda messages: answer(messages, cached=0.8))),
        agent(
            "vertex",
            "Vertex Agent",
            scripted.ScriptedModel(id="claude-sonnet-4@20250514", name="Claude", provider="VertexAI", script=answer),
        ),
        agent(
            "gemini",
            "Gemini Agent",
            scripted.ScriptedModel(
                id="gemini-3.7-flash",
                name="Gemini",
                provider="Google",
                script=lambda messages: answer(messages, reasoning=40),
            ),
        ),
        agent("no-usage", "No Usage", openai(lambda messages: reply_type("No counts."), model_id="gpt-5.4")),
        agent(
            "home-grown",
            "Home Grown",
            scripted.ScriptedModel(id="our-model-7b", name="HomeGrown", provider="Ourselves", script=answer),
        ),
        agent("nameless", None, openai()),
        agent(
            "local",
            "Local",
            scripted.ScriptedModel(id="llama3.2:3b", name="Ollama", provider="Ollama", script=answer),
        ),
        agent(
            "thinking",
            "Thinking",
            ReasoningModel(
                id="gpt-5.4",
                name="OpenAIResponses",
                provider="OpenAI Responses",
                script=lambda messages: answer(messages, cached=0.4, reasoning=70),
            ),
        ),
        agent("caching", "Caching", claude(caches)),
        agent(
            "billed",
            "Billed",
            scripted.ScriptedModel(
                id="anthropic/claude-sonnet-5-5", name="OpenRouter", provider="OpenRouter", script=billed
            ),
        ),
        agent(
            "xai",
            "Grok",
            ReasoningModel(
                id="grok-5", name="xAI", provider="xAI", script=lambda messages: answer(messages, reasoning=25)
            ),
        ),
    ]

    searcher = agent("searcher", "Searcher", openai(calls_tools((search_call,))), tools=[search], role="Searches")
    writer = agent("writer", "Writer", claude(), role="Writes")

    def delegate(member: str) -> Any:
        return call_type("delegate_task_to_member", {"member_id": member, "task": f"Do your part, {member}."})

    def team(identifier: str, name: str, script: Any, members: list[Any]) -> Any:
        return Team(id=identifier, name=name, model=openai(script), members=members, db=db, telemetry=False)

    teams = [
        team(
            "research", "Research Team", calls_tools((delegate("searcher"),), (delegate("writer"),)), [searcher, writer]
        ),
        team("newsroom", "Newsroom", calls_tools((delegate("searcher"), delegate("writer"))), [searcher, writer]),
    ]
    workflows = [
        Workflow(
            id="report",
            name="Report Flow",
            description="Research, then two things at once, then an agent inside a function.",
            db=db,
            telemetry=False,
            steps=[
                Step(name="Research", agent=agents[1]),
                Parallel(
                    Step(name="Draft", agent=agents[9]), Step(name="Illustrate", agent=agents[11]), name="Both at once"
                ),
                Step(name="write up", executor=write),
            ],
        ),
        Workflow(
            id="pipeline",
            name="Team-Pipeline",
            db=db,
            telemetry=False,
            steps=[Step(name="Tidy", executor=tidy), Step(name="Team work", team=teams[0])],
        ),
        Workflow(
            id="failing",
            name="Failing Flow",
            db=db,
            telemetry=False,
            steps=[Step(name="Break", agent=agents[4], max_retries=0), Step(name="Never", agent=agents[0])],
        ),
    ]
    agents.append(
        agent("confirming", "Confirming", openai(calls_tools((call_type("send", {"to": "Bob"}),))), tools=[send])
    )
    agents.append(agent("guarded", "Guarded", openai(echoes), **guards()))
    teams.append(
        Team(
            id="guarded-team",
            name="Guarded Team",
            model=openai(),
            members=[writer],
            db=db,
            telemetry=False,
            **guards(),
        )
    )
    # AgentOS lists the traces of all its databases only if none is its own; it then writes to that of its first agent.
    databases = {"db": db, "tracing_db": db}
    if second_db is not None:
        agents.append(Agent(id="elsewhere", name="Elsewhere", model=openai(), db=second_db, telemetry=False))
        databases = {}
    known = inspect.signature(AgentOS.__init__).parameters  # `db` and `tracing_db` came and went
    arguments = {name: value for name, value in (databases | (more or {})).items() if name in known}
    return AgentOS(
        id="harness",
        name="Harness",
        agents=agents,
        teams=teams,
        workflows=workflows,
        tracing=True,
        telemetry=False,
        **arguments,
    )


def operations(db: Any) -> dict[str, Any]:
    """Return arguments of AgentOS for its waiting side, as far as its release has one: queue, knowledge."""
    from agno.knowledge.knowledge import Knowledge

    arguments: dict[str, Any] = {"knowledge": [Knowledge(name="Handbook", contents_db=db)]}
    if importlib.util.find_spec("agno.job_queue") is not None:
        from agno.job_queue.config import QueueConfig
        from agno.job_queue.store import InMemoryQueueStore

        store = None if hasattr(db, "queue_stats") else InMemoryQueueStore()  # SQLite has no queue
        arguments["queue"] = QueueConfig(durable=True, db=store)
    return arguments


def scheduler(db: Any, base_url: str) -> Any:
    """Return agno's scheduler, which looks every second for what is due.

    `AgentOS(scheduler=True)` is the same, but wants croniter, without which schedules run on demand alone: those with
    an empty cron expression, whenever somebody sets their next run.
    """
    from agno.scheduler import ScheduleExecutor, SchedulePoller

    executor = ScheduleExecutor(base_url=base_url, internal_service_token="internal", poll_interval=1)
    return SchedulePoller(db=db, executor=executor, poll_interval=1)


class UnderWay:
    """The ASGI application, and which of its requests still do anything: `GET /under-way` lists their paths as JSON.

    `GET /begun` tells how many runs were asked for so far: whoever leaves early does not know whether it was heard.

    A run may outlive its response and its client, in tasks or threads of its own. Tasks are followed from the request
    that began them, and spans from their start until they are written, so nobody has to guess from a silence that
    AgentOS has written its last span.
    """

    PATHS = ("/under-way", "/begun")  # answered here: AgentOS neither sees nor traces them

    def __init__(self, app: Any) -> None:
        self._app = app
        self._request: ContextVar[str] = ContextVar("request", default="")  # copied into each task that it begins
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self._spans = follow_spans()
        self._begun = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] in self.PATHS:
            if self._spans and not self._tasks:
                gc.collect()  # what a stream began whose client went away may end only when the garbage is collected
            under_way = {*self._tasks.values(), *(span.name for span in self._spans.values())}
            body = json.dumps(self._begun if scope["path"] == "/begun" else sorted(under_way)).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
            return
        if scope["type"] == "lifespan":
            asyncio.get_running_loop().set_task_factory(self._begin)
        elif scope["type"] == "http":
            self._request.set(scope["path"])
            self._begun += scope["method"] == "POST" and scope["path"].endswith("/runs")
            self._follow(asyncio.current_task())
        await self._app(scope, receive, send)

    def _begin(self, loop: Any, coroutine: Any, **options: Any) -> Any:
        task = asyncio.Task(coroutine, loop=loop, **options)
        self._follow(task)
        return task

    def _follow(self, task: Any) -> None:
        if request := self._request.get():
            self._tasks[task] = request
            task.add_done_callback(lambda done: self._tasks.pop(done, None))


def follow_spans() -> dict[int, Any]:
    """Return the open spans of this process, kept up to date: by id of each, the first span of its trace.

    A span is open until the processors that were there before have written it. That of a request is named for its
    route only once that is found.
    """
    from opentelemetry import trace
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

    first: dict[int, Span] = {}  # by trace id; a run in the background begins after its request's span ended
    spans: dict[int, Any] = {}

    class Follower(SpanProcessor):
        def on_start(self, span: Span, parent_context: Any = None) -> None:
            context = span.get_span_context()
            spans[context.span_id] = first.setdefault(context.trace_id, span)

        def on_end(self, span: ReadableSpan) -> None:
            spans.pop(span.get_span_context().span_id, None)

    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.add_span_processor(Follower())
    return spans


async def create_tables(db: Any) -> None:
    """Create agno's tables beforehand: asynchronous databases lose spans if the first ones race to create them."""
    for table in ("traces", "spans", "sessions"):
        made = db._get_table(table_type=table, create_table_if_not_found=True)
        if inspect.isawaitable(made):
            await made


class Tagged:
    """Middleware that tags spans, as OpenInference has it, with the component that a request is for.

    It stands inside of OpenTelemetry's, which begins each request with a context of its own.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from openinference.instrumentation import using_tags

        parts = scope.get("path", "").split("/")  # such as /agents/plain/runs
        tags = ["beta", f"component:{parts[2]}"] if len(parts) > 2 else ["beta"]
        with using_tags(tags):
            await self._app(scope, receive, send)


def main() -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(description="A real AgentOS on scripted models")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--db", required=True, help="[async-]sqlite:PATH, [async-]postgres:URL or [async-]mysql:URL")
    parser.add_argument("--schema", help="of agno's tables; default: agno's own, on MySQL that of the URL")
    parser.add_argument("--second-db", help="another database, of one more agent; its traces are listed too")
    parser.add_argument("--security-key", help="demanded as a bearer token")
    parser.add_argument("--cold", action="store_true", help="let the first runs create the tables, as agno does")
    parser.add_argument("--operations", action="store_true", help="with a queue and a knowledge base")
    parser.add_argument("--scheduler", action="store_true", help="run schedules that are due")
    parser.add_argument("--ahead", type=int, default=0, help="seconds by which its wall clock is ahead")
    parser.add_argument("--jwt-key", help="tokens are JWTs of HS256 with this key, and their scopes are demanded")
    parser.add_argument("--attempts", type=Path, help="serve the AgentOS of attempting.py, which writes this file")
    parser.add_argument("--tags", action="store_true", help="spans have tags")
    parser.add_argument("--sampler", help="OTEL_TRACES_SAMPLER, e.g. always_on")
    options = parser.parse_args()
    if options.ahead:
        now = time.time
        time.time = lambda: now() + options.ahead
    if options.security_key:
        os.environ["OS_SECURITY_KEY"] = options.security_key
    if options.sampler:
        os.environ["OTEL_TRACES_SAMPLER"] = options.sampler

    import uvicorn

    db = open_database(options.db, "harness-db", options.schema)
    second_db = open_database(options.second_db, "second-db") if options.second_db else None
    more = operations(db) if options.operations else {}
    if options.jwt_key:
        from agno.os.config import AuthorizationConfig

        more["authorization"] = True
        more["authorization_config"] = AuthorizationConfig(verification_keys=[options.jwt_key], algorithm="HS256")
    if options.attempts:
        attempting = load(Path(__file__).with_name("attempting.py"))
        built = attempting.build(db, options.attempts, load_scripted())
    else:
        built = build(db, second_db, more)
    served = built.get_app()
    if options.tags:
        served.add_middleware(Tagged)
    app = UnderWay(served)
    schedules = scheduler(db, f"http://127.0.0.1:{options.port}") if options.scheduler else None

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            if not options.cold:
                for each in filter(None, (db, second_db)):
                    await create_tables(each)
            await super().startup(sockets=sockets)
            if self.started and schedules:
                await schedules.start()
            if self.started:
                print(f"ready http://{options.host}:{options.port}", flush=True)

        async def shutdown(self, sockets: Any = None) -> None:
            if schedules:
                await schedules.stop()
            await super().shutdown(sockets=sockets)

    Server(uvicorn.Config(app, host=options.host, port=options.port, log_level="warning")).run()


if __name__ == "__main__":
    main()
