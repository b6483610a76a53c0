"""`agentos-exporter traces` against a real AgentOS."""

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness import load
from tests.harness.agentos import RunningAgentOS
from tests.harness.commands import Said, listed, surroundings, traces
from tests.harness.unreadable import KINDS, spoil

EVIL = "\x1b]0;owned\x07[bold red]mallory\u202e"
KEY = "a-key-of-the-tests"


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with surroundings(monkeypatch):
        yield


@pytest.fixture(scope="module")
def agentos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("agentos") / "agno.db"
    with RunningAgentOS(sys.executable, f"sqlite:{database}") as running:
        asyncio.run(load.drive(running.base_url, runs=len(load.EACH_KIND), leaving=False))
        form = {"message": "Secret prompt", "stream": "false", "user_id": EVIL, "session_id": "evil-session"}
        httpx.post(f"{running.base_url}/agents/plain/runs", data=form, trust_env=False).raise_for_status()
        httpx.get(f"{running.base_url}/config", trust_env=False).raise_for_status()  # a trace that ran nothing
        running.wait_until_quiet(of="")
        yield running.base_url


@pytest.fixture
def say(agentos: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def ask(*arguments: object, url: str = agentos) -> Said:
        return traces(capsys, *arguments, url=url)

    return ask


@pytest.fixture
def everything(say: Callable[..., Said]) -> list[dict[str, Any]]:
    return listed(say("list", "--limit", 200, "--output", "json"))


@pytest.mark.parametrize("kind", ["half a surrogate in a prompt", "a kind that is a number"])
def test_a_trace_that_agentos_cannot_serve_costs_itself_alone(kind, tmp_path, say):
    path = tmp_path / "agno.db"
    with RunningAgentOS(sys.executable, f"sqlite:{path}") as running:
        asyncio.run(load.drive(running.base_url, runs=4, leaving=False, kinds=[load.Run("agents", "tools")]))
        running.wait_until_quiet()
        trace = spoil(path, *KINDS[kind])
        said = say("list", "--output", "json", url=running.base_url)
        assert said.code == 0, said.err
        assert len(listed(said)) == 3
        assert trace not in {one["trace_id"] for one in listed(said)}
        assert said.json["notes"] == ["passed over: 1 trace that cannot be read"]
        said = say("show", trace, url=running.base_url)
        assert said.code == 1
        assert said.err.count("\n") == 1
        assert "AgentOS cannot serve this trace" in said.err


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
        assert said.code == 0, said.err
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
    assert {session["session_id"] for session in sessions} == {trace["session_id"] for trace in everything}
    assert sum(session["traces"] for session in sessions) == len(everything)
    assert sum(session["llm"]["input_tokens"] for session in sessions) == sum(
        one["llm"]["input_tokens"] for one in everything
    )
    lasts = [session["last"] for session in sessions]
    assert lasts == sorted(lasts, reverse=True)
    mine = say("sessions", "--user", "user-1", "--limit", 100, "--output", "json").json["sessions"]
    assert mine
    assert {one["user_id"] for one in mine} == {"user-1"}
    assert mine == [session for session in sessions if session["user_id"] == "user-1"]
    tools = say("sessions", "--agent", "tools", "--output", "json", "--sort", "session").json["sessions"]
    assert {name for tool in tools for name in tool["components"]} == {"Tool_User", "Report_Flow"}
    assert [tool["session_id"] for tool in tools] == sorted(tool["session_id"] for tool in tools)


# The flags of agno's own script


def test_flags_stand_for_commands(say, everything):
    trace_id = everything[0]["trace_id"]
    assert listed(say("--limit", 3, "--output", "json")) == everything[:3]
    assert say("--trace-id", trace_id, "--output", "json").json["trace"]["trace_id"] == trace_id
    assert say(f"--trace-id={trace_id}", "--output", "json").json["trace"]["trace_id"] == trace_id
    assert "sessions" in say("--stats", "--output", "json").json


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


# The documentation


def test_the_documented_schema_is_the_real_one(everything):
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for key in [*everything[0], *everything[0]["span_counts"], *everything[0]["llm"]]:
        assert f"`{key}`" in page, key
