"""`agentos-exporter reconcile`: what it prints, how it ends, and what it refuses; of an export of the samples."""

import datetime as dt
import json
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest

from exporter.cli import main as cli
from exporter.cli.reconcile import ReconcileOptions
from exporter.core.errors import StateError
from exporter.pricing.money import USD
from exporter.reconcile.exports.vendors import VENDORS
from exporter.service import connect
from tests.harness.commands import surroundings
from tests.harness.exporter import reads

SAMPLES = Path(__file__).parents[1] / "exports"
DAYS = ("--from", "2026-11-17", "--to", "2026-11-18")
CALL = ("it", "", "agent", "openai")
COUNTED = {
    ("gpt-5.4-mini", 17): (60, 100_000, 20_000, 30_000, "0.2115"),
    ("gpt-5.4", 17): (10, 50_000, 0, 8_000, "0.25"),
    ("gpt-5.4-mini", 18): (45, 80_000, 10_000, 20_000, "0.15"),
}
"""What the samples state: calls, input, cached, output and cost."""


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch):
    with surroundings(monkeypatch):
        yield


def sums(counted):
    def rows():
        for (model, day), (calls, fresh, cached, output, usd) in counted.items():
            call = (*CALL, model)
            values = {
                ("agentos_llm_calls_total", call): calls,
                ("agentos_llm_tokens_total", (*call, "input")): fresh,
                ("agentos_llm_tokens_total", (*call, "cache_read")): cached,
                ("agentos_llm_tokens_total", (*call, "cache_write")): 0,
                ("agentos_llm_tokens_total", (*call, "output")): output,
                ("agentos_llm_cost_usd_total", (*call, "input", "listed")): int(float(usd) * 10**6) * USD // 10**6,
            }
            for (metric, labels), value in values.items():
                yield SimpleNamespace(
                    agentos="it", day=dt.date(2026, 11, day), metric=metric, labels=labels, value=value
                )

    return SimpleNamespace(since={"it": 0}, rows=list(rows()))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a configuration, and a state with what the samples state."""
    config = {
        "state": str(tmp_path / "state.db"),
        "agentos": [{"name": "it", "url": "http://127.0.0.1:9"}, {"name": "spare", **reads(f"sqlite:{tmp_path}/a.db")}],
    }
    (tmp_path / "exporter.yml").write_text(json.dumps(config))
    counted(monkeypatch, COUNTED)
    return tmp_path


def counted(monkeypatch, what):
    monkeypatch.setattr(connect, "look_at_days", lambda *_: sums(what))


def run(folder, *arguments, days=DAYS, name="it"):
    named = ("--agentos", name) if name else ()
    return cli.main(["reconcile", "--config.file", str(folder / "exporter.yml"), *named, *days, *arguments])


def usage(*names):
    return [part for name in names for part in ("--usage", str(SAMPLES / name))]


def test_the_same(place, capsys):
    assert run(place, *usage("openai_usage.json")) == 0
    said = capsys.readouterr()
    assert said.out == "15 of 15 figures are the same as those of OpenAI\n"
    assert said.err == ""


def test_all_lists_what_is_the_same_too(place, capsys):
    assert run(place, "--all", *usage("openai_usage.csv")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["day", "model", "figure", "ours", "OpenAI", "difference", "%", "reason"]
    assert lines[1].split() == ["2026-11-17", "gpt-5.4", "calls", "10", "10", "0", "+0.00"]
    assert len(lines) == 17


def test_a_difference_has_its_line_and_its_reason(place, capsys, monkeypatch):
    counted(monkeypatch, COUNTED | {("gpt-5.4-mini", 18): (45, 80_000, 10_000, 20_000, "0.1")})
    assert run(place, *usage("openai_usage.json", "openai_costs.json"), days=(*DAYS[:3], "2026-11-18")) == 1
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if line.startswith("2026-11-18"))
    assert " ".join(line.split()) == (
        "2026-11-18 gpt-5.4-mini cost_usd 0.1 0.15 -0.05 -33.33 "
        "the tokens are the same: a million cost 0.909091 USD here, 1.363636 there"
    )
    assert any("web search tool calls" in line for line in lines)


def test_for_programs(place, capsys, monkeypatch):
    counted(monkeypatch, COUNTED | {("gpt-5.4", 17): (9, 50_000, 0, 8_000, "0.25"), ("o9", 18): (1, 0, 0, 0, "0")})
    assert run(place, "--output", "json", *usage("openai_usage.json")) == 1
    (report,) = json.loads(capsys.readouterr().out)["reports"]
    assert (report["against"], report["exit_code"], report["not_compared"]) == ("OpenAI", 1, [])
    (line,) = (line for line in report["lines"] if line["differs"] and line["day"] == "2026-11-17")
    assert line == {
        "day": "2026-11-17",
        "model": "gpt-5.4",
        "measure": "calls",
        "ours": 9,
        "theirs": 10,
        "difference": -1,
        "percent": "-10.00",
        "differs": True,
        "reasons": [
            {
                "reason": "calls_not_seen",
                "text": "1 calls were not run through this AgentOS, or were repeated by the client below agno",
            }
        ],
    }
    assert {"side": "ours", "model": "o9"} in report["unmatched_models"]


def test_a_day_that_nobody_states_ends_with_2(place, capsys):
    assert run(place, *usage("openai_usage.json"), days=(*DAYS[:3], "2026-11-20")) == 2
    assert "2026-11-20 is not compared: OpenAI says nothing of this day" in capsys.readouterr().out


def test_several_vendors_at_once(place, capsys):
    assert run(place, *usage("openai_usage.json", "anthropic_usage.json")) == 1
    out = capsys.readouterr().out
    assert "figures are the same as those of OpenAI" in out
    assert "figures are the same as those of Anthropic" in out
    assert "model of Anthropic alone: claude-sonnet-5-5" in out


def test_one_bill_may_be_for_all_instances(place, monkeypatch):
    asked = []
    monkeypatch.setattr(connect, "look_at_days", lambda *given: asked.append(given) or sums(COUNTED))
    assert run(place, *usage("openai_usage.json"), name=None) == 2  # of `spare` there are no sums
    assert run(place, *usage("openai_usage.json")) == 0
    assert [given[1] for given in asked] == [None, "it"]


def test_tolerance(place, monkeypatch):
    counted(monkeypatch, COUNTED | {("gpt-5.4", 17): (10, 49_900, 0, 8_000, "0.25")})
    assert run(place, *usage("openai_usage.json")) == 1
    assert run(place, "--tolerance", "0.2%", *usage("openai_usage.json")) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "2026-11-16", *usage("openai_usage.json")), "--to: must not be before --from"),
        (("--to", "2027-12-31", *usage("openai_usage.json")), "--from: must be within 400 days of --to"),
        (("--vendor", "openai"), "--vendor: makes no sense without --usage"),
        (
            ("--vendor", "google", *usage("openai_usage.json")),
            "openai_usage.json: is an export of openai, not of google",
        ),
        (("--usage", "/nowhere.json"), "/nowhere.json: cannot be read: No such file or directory"),
        (("--agentos", "nobody"), "--agentos: name one AgentOS of the configuration: it, spare"),
        (("--agentos", "spare"), "agentos spare: its own daily metrics are read through its API: give its url"),
    ],
)
def test_what_could_not_be_compared_ends_with_2_and_says_why(place, capsys, arguments, message):
    assert run(place, *arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""


def test_a_state_that_cannot_be_read(place, capsys, monkeypatch):
    def fail(*_):
        raise StateError("state file: broken")

    monkeypatch.setattr(connect, "look_at_days", fail)
    assert run(place, *usage("openai_usage.json")) == 2
    assert "state file: broken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--from", "yesterday"], "'yesterday' is not a day such as 2026-11-01"),
        (["--from", "2026-11-17T00:00Z"], "is not a day such as 2026-11-01"),
        (["--from", "2026-11-17", "--tolerance", "-1"], "--tolerance"),
        (["--from", "2026-11-17", "--tolerance", "much"], "'much' is not a percentage such as 0.5"),
    ],
)
def test_what_is_not_understood(flags, message, capsys):
    assert cli.main(["reconcile", "--to", "2026-11-18", *flags]) == 2
    assert message in capsys.readouterr().err


def test_the_vendors_of_the_command_line_are_all():
    (literal, _) = get_args(get_args(get_type_hints(ReconcileOptions, include_extras=True)["vendor"])[0])
    assert set(get_args(literal)) == set(VENDORS)
