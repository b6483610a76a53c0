"""`agentos-exporter traces` against answers that no AgentOS of today gives."""

import json
import re
import threading
import time as clock
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from exporter.sources.api.http import OWN_TRACE_PREFIX
from tests.harness.agentos import free_port
from tests.harness.commands import Said, listed, surroundings, traces


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with surroundings(monkeypatch):
        yield


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def ask(*arguments: object, url: str) -> Said:
        return traces(capsys, *arguments, url=url)

    return ask


def test_nobody_there(say):
    said = say("list", url=f"http://127.0.0.1:{free_port()}")
    assert said.code == 1
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1


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
    assert [session["traces"] for session in said.json["sessions"]] == [1, 2, 3]
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
    assert said.json["notes"] == ["passed over: 1 trace that cannot be read"]
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
