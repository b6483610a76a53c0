"""`agentos-exporter traces` against a real AgentOS, and against answers that no AgentOS should give."""

import asyncio
import json
import logging
import os
import re
import sys
import threading
import time as clock
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import structlog

from exporter import cli, logs, traces_cli
from exporter.sources.http import OWN_TRACE_PREFIX
from tests.harness import load
from tests.harness.agentos import RunningAgentOS, free_port

EVIL = "\x1b]0;owned\x07[bold red]mallory\u202e"
KEY = "a-key-of-the-tests"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting from outside; logging as it was."""
    for name in [name for name in os.environ if name.startswith("AGENTOS_EXPORTER_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(logs, "_secrets", {})
    monkeypatch.setattr(logs, "_needles", ())
    root = logging.getLogger()
    level = root.level
    names = (*logs._AGNO, *logs._UVICORN, *logs._NOISY)
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for handler in [handler for handler in root.handlers if isinstance(handler, logs._Handler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def agentos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("agentos") / "agno.db"
    with RunningAgentOS(sys.executable, f"sqlite:{database}") as running:
        asyncio.run(load.drive(running.base_url, runs=len(load.EACH_KIND), leaving=False))
        form = {"message": "Secret prompt", "stream": "false", "user_id": EVIL, "session_id": "evil-session"}
        httpx.post(f"{running.base_url}/agents/plain/runs", data=form, trust_env=False).raise_for_status()
        httpx.get(f"{running.base_url}/config", trust_env=False).raise_for_status()  # a trace that ran nothing
        _wait_until_written(running.base_url)
        yield running.base_url


def _wait_until_written(url: str) -> None:
    """Background runs go on after their answer."""
    own = {"traceparent": f"00-{OWN_TRACE_PREFIX}0000000000000001-0000000000000001-00"}
    seen, calm = -1, 0
    for _ in range(100):
        rows = httpx.get(f"{url}/traces?limit=1000", headers=own, trust_env=False).json()["data"]
        spans = sum(row["total_spans"] for row in rows)
        calm = calm + 1 if spans == seen else 0
        if calm == 4:
            return
        seen = spans
        threading.Event().wait(0.25)
    raise AssertionError("still running")


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


@pytest.fixture
def say(agentos: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def ask(*arguments: object, url: str = agentos) -> Said:
        code = cli.main(["traces", *map(str, arguments), *(["--url", url] if url else [])])
        return Said(code, *capsys.readouterr())

    return ask


def listed(said: Said) -> list[dict[str, Any]]:
    assert said.code == 0, said.err
    return said.json["traces"]


@pytest.fixture
def everything(say: Callable[..., Said]) -> list[dict[str, Any]]:
    return listed(say("list", "--limit", 200, "--output", "json"))


# list


def test_list_shows_each_run_once_latest_first_and_leaves_out_bare_requests(say, everything):
    assert len(everything) == len(load.EACH_KIND) + 1
    starts = [trace["start"] for trace in everything]
    assert starts == sorted(starts, reverse=True)
    assert all(trace["root"] for trace in everything)
    more = listed(say("list", "--limit", 200, "--all", "--output", "json"))
    assert {trace["root"] is None for trace in more} == {True, False}
    assert "HTTP request" in say("list").out


def test_the_schema_of_a_trace(everything):
    trace = next(trace for trace in everything if trace["root"]["name"] == "Tool_User" and trace["llm"]["calls"] == 3)
    assert set(trace) == {
        *("trace_id", "db_id", "start", "end", "duration_seconds", "status", "root", "run_id", "session_id", "user_id"),
        *("span_counts", "llm"),
    }
    assert re.fullmatch(r"[0-9a-f]{32}", trace["trace_id"])
    assert trace["db_id"] == "harness-db"
    assert trace["status"] == "OK"
    assert trace["root"]["kind"] == "agent"
    assert trace["span_counts"]["total"] == trace["span_counts"]["visible"]
    assert trace["span_counts"]["hidden"] == trace["span_counts"]["failed"] == 0
    assert trace["llm"]["input_tokens"] > trace["llm"]["output_tokens"] > 0
    assert trace["llm"]["models"] == ["gpt-5.4-mini"]
    assert trace["llm"]["calls_without_tokens"] == 0


def test_filters_find_what_rows_do_not_say(say, everything):
    user = [trace["trace_id"] for trace in everything if trace["user_id"] == "user-2"]
    said = say("list", "--user", "user-2", "--output", "json", "--limit", 100)
    assert [trace["trace_id"] for trace in listed(said)] == user
    assert user
    assert any("filtered by their spans" in note for note in said.json["notes"])
    session = next(trace["session_id"] for trace in everything if trace["user_id"] == "user-2")
    found = listed(say("list", "--session", session, "--output", "json"))
    assert {trace["session_id"] for trace in found} == {session}
    run = next(trace["run_id"] for trace in everything if trace["run_id"])
    assert [trace["run_id"] for trace in listed(say("list", "--run", run, "--output", "json"))] == [run]
    assert listed(say("list", "--user", "nobody", "--output", "json")) == []


def test_status_is_that_of_the_spans(say, everything):
    failed = listed(say("list", "--status", "error", "--limit", 100, "--output", "json"))
    names = {trace["root"]["name"] for trace in failed}
    assert {"Failing_Model", "Failing_Tool", "Failing_Flow"} <= names
    assert all(trace["span_counts"]["failed"] for trace in failed)
    fine = listed(say("list", "--status", "OK", "--limit", 100, "--output", "json"))
    unset = listed(say("list", "--status", "UNSET", "--limit", 100, "--output", "json"))
    assert len(failed) + len(fine) + len(unset) == len(everything)


@pytest.mark.parametrize("name", ["tools", "Tool User", "Tool_User"])
def test_agents_by_id_or_name_as_members_too(name, say):
    found = listed(say("list", "--agent", name, "--limit", 100, "--output", "json"))
    assert {trace["root"]["name"] for trace in found} == {"Tool_User", "Report_Flow"}


def test_teams_and_workflows(say):
    teams = listed(say("list", "--team", "research", "--limit", 100, "--output", "json"))
    assert {trace["root"]["name"] for trace in teams} == {"Research_Team", "Team_Pipeline"}
    flows = listed(say("list", "--workflow", "Report Flow", "--limit", 100, "--output", "json"))
    assert {trace["root"]["name"] for trace in flows} == {"Report_Flow"}


def test_since_and_until(say, everything):
    middle = everything[len(everything) // 2]["start"]
    newer = listed(say("list", "--since", middle, "--limit", 100, "--output", "json"))
    older = listed(say("list", "--until", middle, "--limit", 100, "--output", "json"))
    assert {trace["start"] >= middle for trace in newer} == {True}
    assert {trace["start"] <= middle for trace in older} == {True}
    assert len(newer) + len(older) in {len(everything), len(everything) + 1}
    assert listed(say("list", "--since", "1h", "--limit", 100, "--output", "json")) == everything


def test_pages_are_parts_of_the_whole(say, everything):
    pages = [say("list", "--limit", 15, "--page", page, "--output", "json") for page in (1, 2, 3)]
    assert [trace for page in pages for trace in listed(page)] == everything
    assert [page.json["more"] for page in pages] == [True, True, False]
    assert listed(say("list", "--limit", 15, "--page", 9, "--output", "json")) == []


def test_order(say, everything):
    slow = listed(say("list", "--sort", "duration", "--limit", 100, "--output", "json"))
    assert slow == sorted(everything, key=lambda trace: trace["duration_seconds"], reverse=True)
    said = say("list", "--reverse", "--limit", 10, "--output", "json")
    assert listed(said) == everything[9::-1]
    assert any("sorted among these 10 traces only" in note for note in said.json["notes"])


def test_the_scan_has_an_end_and_says_so(say):
    said = say("list", "--user", "nobody", "--scan", 30, "--output", "json")
    assert said.code == 0
    assert any("stopped after 30 traces" in note for note in said.json["notes"])


@pytest.mark.parametrize("columns", [80, 120, 200])
def test_tables_fit(columns, say, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in (["list"], ["sessions"], ["list", "--output", "table", "--limit", "100"]):
        said = say(*command)
        assert said.code == 0
        assert max(map(len, said.out.splitlines())) <= columns


def test_piped_tables_have_whole_ids_and_no_colours(say, everything):
    out = say("list").out
    assert everything[0]["trace_id"] in out
    assert "\x1b" not in out


def test_nothing_from_the_server_reaches_the_terminal_as_it_is(say, everything):
    trace = next(trace for trace in everything if trace["session_id"] == "evil-session")
    assert trace["user_id"] == EVIL
    for command in (["list", "--limit", 100], ["show", trace["trace_id"], "--content"], ["sessions", "--limit", 100]):
        out = say(*command).out
        assert r"\x1b]0;owned\x07[bold red]mallory" in out
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)


def test_plain():
    assert traces_cli.plain("a\tb\nc\x9b\ud800 ü 東") == "a    b\\nc\\x9b\\ud800 ü 東"
    assert traces_cli.plain("a\r\nb\rc", lines=True) == "a\nb\\rc"


# show


def one(everything: list[dict[str, Any]], name: str, **counts: int) -> str:
    return next(
        trace["trace_id"]
        for trace in everything
        if trace["root"]["name"] == name and all(trace["span_counts"][key] == value for key, value in counts.items())
    )


def test_show_a_run_that_went_well(say, everything):
    said = say("show", one(everything, "Research_Team"), "--output", "json")
    trace = said.json["trace"]
    spans = trace["spans"]
    assert len(spans) == trace["span_counts"]["visible"]
    ids = {span["span_id"] for span in spans}
    assert len(ids) == len(spans)
    assert all(span["parent_span_id"] in ids for span in spans if span["depth"])
    assert sum(span["input_tokens"] or 0 for span in spans) == trace["llm"]["input_tokens"]
    assert not any("input" in span for span in spans)
    text = say("show", trace["trace_id"]).out
    duration = r"[\d.]+ m?s"
    call = rf"├─ llm gpt-5\.4-mini OpenAIChat +\+{duration} +{duration} +\d+ +\d+$"
    assert re.search(call, text, re.MULTILINE)
    assert "Hello" not in text


def test_show_a_tool_that_failed(say, everything):
    said = say("show", one(everything, "Failing_Tool"))
    assert said.code == 0
    assert "alice: not found" in said.out
    assert "✗" in said.out
    assert re.search(r"^status +ERROR$", said.out, re.MULTILINE)
    spans = say("show", one(everything, "Failing_Tool"), "--output", "json").json["trace"]["spans"]
    assert [span["error"] for span in spans if span["name"] == "lookup"] == ["alice: not found"]


def test_show_contents_only_when_asked(say, everything):
    trace_id = next(trace["trace_id"] for trace in everything if trace["session_id"] == "evil-session")
    assert "Secret prompt" not in say("show", trace_id).out + say("show", trace_id, "--output", "json").out
    assert "Secret prompt" in say("show", trace_id, "--content").out
    spans = say("show", trace_id, "--content", "--output", "json").json["trace"]["spans"]
    assert {"Secret prompt"} == {span["input"] for span in spans if span["kind"] == "agent"}


def test_a_call_seen_twice_counts_once(say, everything):
    trace = say("show", one(everything, "Vendor_Instrumented"), "--output", "json").json["trace"]
    assert [span["same_call_as_parent"] for span in trace["spans"] if span["kind"] == "llm"] == [False, True]
    assert trace["llm"]["calls"] == 1


def test_unknown_tokens_are_not_zero(say, everything):
    trace_id = one(everything, "No_Usage")
    assert "?: a model call did not report its tokens" in say("show", trace_id).out
    assert say("show", trace_id, "--output", "json").json["trace"]["llm"]["calls_without_tokens"] == 1


def test_show_by_prefix(say, everything):
    trace_id = everything[0]["trace_id"]
    for asked in (trace_id[:8], trace_id[:31].upper()):
        assert say("show", asked, "--output", "json").json["trace"]["trace_id"] == trace_id


@pytest.mark.parametrize("asked", ["0" * 32, "00000000"])
def test_show_what_is_not_there(asked, say):
    said = say("show", asked)
    assert said.code == 1
    assert said.out == ""
    assert said.err == (
        f"error: trace {asked} not found in harness-db; AgentOS also answers so when its database is down\n"
    )


@pytest.mark.parametrize("asked", ["abc", "not-a-trace", "../../config", "0" * 33])
def test_show_what_is_no_id(asked, say):
    said = say("show", asked)
    assert said.code == 2
    assert "hexadecimal" in said.err


# sessions


def test_sessions_are_worked_out_where_agentos_has_none(say, everything):
    said = say("sessions", "--limit", 100, "--output", "json")
    assert said.code == 0
    assert said.json["source"] == "traces"
    assert any("worked out from the newest" in note for note in said.json["notes"])
    sessions = said.json["sessions"]
    assert {one["session_id"] for one in sessions} == {trace["session_id"] for trace in everything}
    assert sum(one["traces"] for one in sessions) == len(everything)
    assert sum(one["llm"]["input_tokens"] for one in sessions) == sum(one["llm"]["input_tokens"] for one in everything)
    lasts = [one["last"] for one in sessions]
    assert lasts == sorted(lasts, reverse=True)
    mine = say("sessions", "--user", "user-1", "--limit", 100, "--output", "json").json["sessions"]
    assert mine
    assert {one["user_id"] for one in mine} == {"user-1"}
    assert mine == [one for one in sessions if one["user_id"] == "user-1"]
    tools = say("sessions", "--agent", "tools", "--output", "json", "--sort", "session").json["sessions"]
    assert {name for one in tools for name in one["components"]} == {"Tool_User", "Report_Flow"}
    assert [one["session_id"] for one in tools] == sorted(one["session_id"] for one in tools)


# The flags of agno's own script


def test_flags_stand_for_commands(say, everything):
    trace_id = everything[0]["trace_id"]
    assert listed(say("--limit", 3, "--output", "json")) == everything[:3]
    assert say("--trace-id", trace_id, "--output", "json").json["trace"]["trace_id"] == trace_id
    assert say(f"--trace-id={trace_id}", "--output", "json").json["trace"]["trace_id"] == trace_id
    assert "sessions" in say("--stats", "--output", "json").json


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], ["list"]),
        (["--limit", "3"], ["list", "--limit", "3"]),
        (["--user", "list"], ["list", "--user", "list"]),
        (["--url", "u", "show", "id"], ["show", "--url", "u", "id"]),
        (["--url=u", "sessions"], ["sessions", "--url=u"]),
        (["--stats", "--limit", "3"], ["sessions", "--limit", "3"]),
        (["--trace-id", "id", "--url", "u"], ["show", "--url", "u", "--", "id"]),
        (["--help"], ["--help"]),
        (["show", "id"], ["show", "id"]),
        (["--content", "show", "id"], ["show", "--content", "id"]),
    ],
)
def test_rewrite(given, meant):
    assert traces_cli.rewrite(given) == meant


# Which AgentOS, and how to get in


def test_from_the_configuration_file(say, agentos, tmp_path, monkeypatch):
    file = tmp_path / "exporter.yml"
    instances = f"[{{name: here, url: '{agentos}'}}, {{name: there, url: 'http://127.0.0.1:1'}}]"
    file.write_text(f"state: memory\nagentos: {instances}\n")
    monkeypatch.setenv("AGENTOS_EXPORTER_AGENTOS_URL", "http://127.0.0.1:2")  # a flag wins
    found = say("list", "--config.file", file, "--agentos", "here", "--limit", 1, "--output", "json", url="")
    assert found.json["agentos"] == {"name": "here", "url": agentos}
    several = say("list", "--config.file", file, url="")
    assert (several.code, several.err) == (
        2,
        "error: --agentos: the configuration has several; name one of here, there\n",
    )
    missing = say("list", "--config.file", file, "--agentos", "x\x1b", url="")
    assert (missing.code, missing.err) == (
        2,
        "error: --agentos: the configuration has no 'x\\x1b'; it has here, there\n",
    )


def test_from_the_environment(say, agentos, monkeypatch):
    monkeypatch.setenv("AGENTOS_EXPORTER_AGENTOS_URL", agentos)
    monkeypatch.setenv("AGENTOS_EXPORTER_LOG_LEVEL", "nonsense of the daemon's")
    assert len(listed(say("list", "--limit", 2, "--output", "json", url=""))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--url", "ftp://x"], "--url: a URL starts with http:// or https://"),
        (["list"], "give --url"),
        (["list", "--url", "http://x", "--tls.ca-file", "x.pem"], "makes no sense with an http:// url"),
        (["list", "--url", "https://x", "--tls.ca-file", "nowhere.pem"], "tls: No such file"),
        (["list", "--url", "http://x", "--token-file", "nowhere"], "cannot read nowhere"),
        (["list", "--url", "http://x", "--token-env", "NOT_SET_ANYWHERE"], "names no environment variable that is set"),
        (["list", "--limit", "0"], "--limit: '0' is not a whole number"),
        (["list", "--since", "yesterday"], "neither a duration"),
        (["list", "--timeout", "0s"], "longer than 0s"),
        (["list", "--status", "FINE"], "--status: invalid choice"),
        (["list", "--token-file", "a", "--token-env", "b"], "not allowed with"),
        (["show"], "TRACE_ID"),
    ],
)
def test_usage(arguments, message, capsys):
    assert cli.main(["traces", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert "Traceback" not in said.err


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("locked") / "agno.db"
    with RunningAgentOS(sys.executable, f"sqlite:{database}", security_key=KEY) as running:
        yield running.base_url


def test_tokens(say, locked, tmp_path, monkeypatch):
    refused = say("list", url=locked)
    assert refused.code == 1
    assert "401" in refused.err
    (tmp_path / "token").write_text("wr0ng-token\n")
    wrong = say("list", "--token-file", tmp_path / "token", url=locked)
    assert wrong.code == 1
    assert "401" in wrong.err
    assert "wr0ng-token" not in wrong.err
    (tmp_path / "token").write_text(f"{KEY}\n")
    empty = say("list", "--token-file", tmp_path / "token", url=locked)
    assert empty.code == 0
    assert empty.out.startswith("no traces found")
    assert "its database fails" in empty.out
    monkeypatch.setenv("MY_TOKEN", KEY)
    assert say("sessions", "--token-env", "MY_TOKEN", url=locked).code == 0
    monkeypatch.setenv("AGENTOS_EXPORTER_TOKEN", KEY)
    assert say("list", url=locked).code == 0


def test_nobody_there(say):
    said = say("list", url=f"http://127.0.0.1:{free_port()}")
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


# Answers that are not those of today's AgentOS


class Stub:
    """A server of canned answers: route → answer or (status, answer). Keeps what it was asked."""

    def __init__(self) -> None:
        self.routes: dict[str, Any] = {"GET /config": CONFIG}
        self.asked: list[tuple[str, dict[str, list[str]], Any, dict[str, str]]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                url = urlsplit(self.path)
                route = f"{self.command} {url.path}"
                asked = json.loads(body) if body else None
                stub.asked.append((route, parse_qs(url.query), asked, dict(self.headers)))
                found = stub.routes.get(route, (404, {"detail": "Not Found"}))
                if callable(found):
                    found = found(asked)
                status, answer = found if isinstance(found, tuple) else (200, found)
                raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_GET = do_POST = _answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that gave up
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))


CONFIG = {
    "os_id": "old",
    "databases": ["a"],
    "session": None,
    "traces": {"dbs": [{"db_id": "a", "domain_config": {}, "tables": []}]},
    "agents": [{"id": "plain", "name": "Plain Agent"}],
    "teams": [],
    "workflows": [],
    "interfaces": [],
}


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    stub.thread.start()
    yield stub
    stub.server.shutdown()
    stub.thread.join()
    stub.server.server_close()


def row(number: int, **facts: Any) -> dict[str, Any]:
    second = f"{number:02}"
    return {
        "trace_id": f"{number:08x}" + "0" * 24,
        "name": "Plain_Agent.arun",
        "status": "OK",
        "duration": "1s",
        "start_time": f"2026-01-01T00:00:{second}.000001Z",
        "end_time": f"2026-01-01T00:00:{second}.500001Z",
        "created_at": f"2026-01-01T00:00:{second}.600001Z",
        "total_spans": 2,
        "error_count": 0,
        "session_id": f"session-{number}",
        "user_id": f"user-{number % 2}",
        "run_id": f"run-{number}",
        "agent_id": "plain",
    } | facts


def tree(number: int, **facts: Any) -> dict[str, Any]:
    base = row(number)
    times = {"duration": "1s", "start_time": base["start_time"], "end_time": base["end_time"], "status": "OK"}
    llm = {"id": f"llm-{number}", "name": "OpenAIChat.ainvoke", "type": "LLM", "metadata": {"model": "m"}} | times
    agent = {"id": f"agent-{number}", "name": "Plain_Agent.arun", "type": "AGENT", "spans": [llm]} | times
    return base | {"tree": [agent]} | facts


def page(*rows: dict[str, Any]) -> dict[str, Any]:
    meta = {"page": 1, "limit": 20, "total_pages": 1, "total_count": len(rows), "search_time_ms": 1.0}
    return {"data": list(rows), "meta": meta}


def test_rows_that_have_ids_are_asked_for_them(stub, say):
    def search(body: dict[str, Any]) -> dict[str, Any]:
        wanted = [one["value"] for one in body["filter"]["conditions"] if one["op"] == "EQ"]
        return page(*(tree(number) for number in (4, 3, 2, 1) if not wanted or f"user-{number % 2}" in wanted))

    stub.routes["POST /traces/search"] = search
    said = say("list", "--user", "user-1", "--output", "json", url=stub.url)
    assert [trace["user_id"] for trace in listed(said)] == ["user-1", "user-1"]
    assert said.json["notes"] == []
    assert {"op": "EQ", "key": "user_id", "value": "user-1"} in stub.asked[-1][2]["filter"]["conditions"]


def test_requests_are_sent_as_the_daemon_sends_them(stub, say):
    stub.routes["POST /traces/search"] = page()
    say("list", url=stub.url)
    for _, _, _, headers in stub.asked:
        assert re.fullmatch(rf"00-{OWN_TRACE_PREFIX}[0-9a-f]{{16}}-[0-9a-f]{{16}}-00", headers["traceparent"])


@pytest.mark.parametrize(
    "refusal", [(405, {"detail": "Method Not Allowed"}), (500, {"detail": "unexpected keyword argument 'filter_expr'"})]
)
def test_an_agentos_without_search_is_listed(refusal, stub, say):
    stub.routes["POST /traces/search"] = refusal
    stub.routes["GET /traces"] = page(row(3), row(2, trace_id=OWN_TRACE_PREFIX + "0" * 16), row(1))
    for number in (1, 3):
        stub.routes[f"GET /traces/{number:08x}{'0' * 24}"] = tree(number)
    said = say("list", "--output", "json", url=stub.url)
    assert [trace["session_id"] for trace in listed(said)] == ["session-3", "session-1"]
    assert any("cannot search" in note for note in said.json["notes"])
    assert say("show", "00000003", "--output", "json", url=stub.url).json["trace"]["run_id"] == "run-3"
    early = say("list", "--until", "2026-01-01T00:00:02Z", "--output", "json", url=stub.url)
    assert [trace["session_id"] for trace in listed(early)] == ["session-1"]


def test_several_databases_are_one_list(stub, say):
    stub.routes["GET /config"] = CONFIG | {
        "traces": {"dbs": [{"db_id": db, "domain_config": {}, "tables": []} for db in ("a", "b")]}
    }
    stub.routes["POST /traces/search"] = lambda body: page(
        *(tree(number) for number in ((5, 3, 1) if stub.asked[-1][1]["db_id"] == ["a"] else (4, 2)))
    )
    traces = listed(say("list", "--output", "json", url=stub.url))
    assert [(trace["db_id"], trace["run_id"][-1]) for trace in traces] == [
        *(("a", "5"), ("b", "4"), ("a", "3"), ("b", "2"), ("a", "1"))
    ]
    only = listed(say("list", "--db-id", "b", "--output", "json", url=stub.url))
    assert {trace["db_id"] for trace in only} == {"b"}
    assert " db" in say("list", url=stub.url).out


def test_a_prefix_of_several_traces(stub, say):
    stub.routes["POST /traces/search"] = page(tree(1), tree(2))
    said = say("show", "00000000", url=stub.url)
    assert said.code == 1
    assert "several traces start with 00000000" in said.err


def test_hidden_spans_are_said(stub, say):
    stub.routes[f"GET /traces/{1:08x}{'0' * 24}"] = tree(1, total_spans=7)
    said = say("show", f"{1:08x}{'0' * 24}", url=stub.url)
    assert "5 of 7 spans not visible yet" in said.out
    assert "start and end of the whole trace" in said.out
    stub.routes["POST /traces/search"] = page(tree(2, tree=[]), tree(1, total_spans=7))
    said = say("list", url=stub.url)
    assert "0/2" in said.out
    assert "2/7" in said.out
    assert "(not visible yet)" in said.out


def test_the_error_of_a_root_is_that_of_its_trace(stub, say):
    failing = tree(1, error="KeyError: 'x'\n\x1b[2Jtwo", status="ERROR")
    failing["tree"][0]["status"] = "ERROR"
    stub.routes[f"GET /traces/{1:08x}{'0' * 24}"] = failing
    out = say("show", f"{1:08x}{'0' * 24}", url=stub.url).out
    assert "✗ KeyError: 'x'\n" in out
    assert r"\x1b[2Jtwo" in out


def test_statistics_of_agentos_itself(stub, say):
    stub.routes["POST /traces/search"] = page(tree(2), tree(1))
    sessions = [
        {
            "session_id": f"session-{number}",
            "user_id": "user-1",
            "agent_id": "plain",
            "total_traces": number,
            "first_trace_at": f"2026-01-01T00:00:0{number}Z",
            "last_trace_at": f"2026-01-01T00:01:0{number}Z",
        }
        for number in (3, 2, 1)
    ]
    stub.routes["GET /trace_session_stats"] = page(*sessions)
    said = say("sessions", "--agent", "Plain Agent", "--sort", "traces", "--reverse", "--output", "json", url=stub.url)
    assert said.json["source"] == "agentos"
    assert [one["traces"] for one in said.json["sessions"]] == [1, 2, 3]
    assert said.json["sessions"][0]["llm"] is None
    assert any("sorted among these 3 sessions only" in note for note in said.json["notes"])
    assert stub.asked[-1][1]["agent_id"] == ["plain"]
    assert say("sessions", "--limit", 2, "--output", "json", url=stub.url).json["more"] is True


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"<html>Sign in</html>", "is this the URL of an AgentOS?"),
        ({"hello": "world"}, "is this its URL?"),
        ((404, {"detail": "Not Found"}), "is this the URL of an AgentOS?"),
        ((302, b""), "redirected"),
        ((500, {"detail": "\x1b[31mboom"}), "\\x1b[31mboom"),
    ],
)
def test_not_an_agentos(answer, message, stub, say):
    stub.routes["GET /config"] = answer
    said = say("list", url=stub.url)
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert message in said.err
    assert "\x1b" not in said.err


def test_a_trace_that_makes_no_sense_costs_itself_alone(stub, say):
    rows = [tree(3), {"trace_id": "nonsense"}, tree(1)]

    def search(body: dict[str, Any]) -> dict[str, Any]:
        first = (body["page"] - 1) * body["limit"]
        return page(*rows[first : first + body["limit"]]) | {"meta": page(*rows)["meta"]}

    stub.routes["POST /traces/search"] = search
    said = say("list", "--output", "json", url=stub.url)
    assert [trace["run_id"] for trace in listed(said)] == ["run-3", "run-1"]
    assert said.json["notes"] == ["passed over: 1 trace that agno's client cannot read"]
    stub.routes["POST /traces/search"] = {"hello": "world"}
    assert say("list", url=stub.url).code == 1


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_times_at_the_ends_of_the_calendar(time, zone, stub, say, monkeypatch):
    monkeypatch.setenv("TZ", zone)
    clock.tzset()
    try:
        stub.routes["POST /traces/search"] = page(tree(1, start_time=time))
        assert say("list", url=stub.url).code == 0
        assert say("list", "--output", "json", url=stub.url).json["traces"][0]["start"].startswith(time[:19])
    finally:
        monkeypatch.undo()
        clock.tzset()


def test_a_tree_of_any_depth_leaves_room_for_names(stub, say, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    deep = tree(1, total_spans=102)
    node = deep["tree"][0]
    for number in range(100):
        child = {key: value for key, value in node.items() if key != "spans"} | {"id": f"deep-{number}"}
        node["spans"] = [child | {"name": "Deep.arun", "status": "ERROR", "error": "boom " * 20}]
        node = node["spans"][0]
    stub.routes[f"GET /traces/{1:08x}{'0' * 24}"] = deep
    lines = say("show", f"{1:08x}{'0' * 24}", url=stub.url).out.splitlines()
    assert sum("agent Deep" in line for line in lines) == 100
    assert max(map(len, lines)) <= 80


def test_a_missing_scope_is_named(stub, say):
    refusal = (403, {"detail": "Insufficient permissions. Required scope(s): traces:read"})
    stub.routes["GET /config"] = refusal
    stub.routes["POST /traces/search"] = page(tree(1))
    # /config may be forbidden where traces are not.
    assert len(listed(say("list", "--output", "json", url=stub.url))) == 1
    stub.routes["POST /traces/search"] = refusal
    said = say("list", url=stub.url)
    assert said.code == 1
    assert "Required scope(s): traces:read" in said.err


def test_a_slow_agentos(stub, say):
    gate = threading.Event()
    stub.routes["GET /config"] = lambda _: (gate.wait(10), CONFIG)[1]
    try:
        said = say("list", "--timeout", "200ms", url=stub.url)
    finally:
        gate.set()
    assert said.code == 1
    assert "no answer within 0.2 s" in said.err


def test_an_interrupt_ends_with_130(monkeypatch):
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(traces_cli, "run", interrupted)
    assert cli.main(["traces", "list"]) == 130


def test_the_documented_schema_is_the_real_one(everything):
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for key in [*everything[0], *everything[0]["span_counts"], *everything[0]["llm"]]:
        assert f"`{key}`" in page, key
