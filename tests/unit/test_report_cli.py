"""`agentos-exporter report`: what it asks the state for, what it refuses, and where its output goes."""

import csv
import datetime as dt
import io
import json

import pytest

from exporter.cli import main as cli
from exporter.cli import report as command
from exporter.core.times import micros
from exporter.ledger.daily import Days, DaySum
from exporter.ledger.store import Ledger
from exporter.pricing.money import USD
from exporter.service import connect
from tests.harness.commands import surroundings

TODAY = dt.date(2026, 11, 20)
SINCE = micros(dt.datetime(2026, 10, 1, tzinfo=dt.UTC))
ROWS = (
    DaySum("prod", TODAY, "agentos_llm_cost_usd_total", ("prod", "R", "A", "openai", "gpt", "input", "listed"), USD),
    DaySum("prod", TODAY, "agentos_llm_unpriced_tokens_total", ("prod", "", "house", "input"), 9),
    DaySum("prod", TODAY, "agentos_dimension_cost_usd_total", ("prod", "tenant", "acme", "gpt"), USD),
    DaySum("prod", TODAY, "agentos_user_cost_usd_total", ("prod", "alice"), USD),
)


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch):
    with surroundings(monkeypatch):
        yield


@pytest.fixture(autouse=True)
def today(monkeypatch):
    monkeypatch.setattr(command.time, "time", lambda: micros(dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)) / 1e6)


@pytest.fixture
def asked(monkeypatch):
    """What the state was asked for; it answers with the rows above."""
    questions = []

    def look(_state, agentos, first, last):
        questions.append((agentos, first, last))
        return Days({"prod": SINCE}, ROWS)

    monkeypatch.setattr(connect, "look_at_days", look)
    return questions


@pytest.fixture
def run(tmp_path, capsys):
    """Run the command on an empty state; returns (exit code, standard output, standard error)."""
    Ledger(tmp_path / "state.db").close()

    def running(*arguments, **more):
        config = {"state": "state.db", "agentos": [{"name": "prod", "url": "http://localhost:7777"}], **more}
        (tmp_path / "exporter.yml").write_text(json.dumps(config))
        code = cli.main(["report", "--config.file", str(tmp_path / "exporter.yml"), *arguments])
        return (code, *capsys.readouterr())

    return running


@pytest.mark.parametrize(
    ("arguments", "first", "last"),
    [
        ([], dt.date(2026, 10, 22), TODAY),
        (["--to", "2026-11-10"], dt.date(2026, 10, 12), dt.date(2026, 11, 10)),
        (["--from", "2026-11-01"], dt.date(2026, 11, 1), TODAY),
        (["--from", "2026-11-20", "--to", "2026-11-30"], TODAY, dt.date(2026, 11, 30)),
    ],
)
def test_the_days_that_are_read(run, asked, arguments, first, last):
    code, out, _ = run(*arguments)
    assert (code, asked) == (0, [(None, first, last)])
    assert out.startswith(f"{first} to {last} (UTC): prod\n")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--from", "2026-11-21"], "--from: lies in the future"),
        (["--from", "2026-11-10", "--to", "2026-11-09"], "--to: must not be before --from"),
        (["--from", "2025-10-01"], "--from: must be within 400 days of --to"),
        (["--by", "colour"], "--by: 'colour' is nothing to group by"),
        (["--by", "user"], "--by: users are not counted: labels.user is off"),
        (["--by", "tenant"], "--by: 'tenant' is nothing to group by"),
        (["--agentos", "nobody"], "--agentos: neither the configuration nor the state knows it; known are prod"),
    ],
)
def test_what_is_refused(run, asked, arguments, problem):
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {problem}")


def test_a_date_that_is_none_is_not_understood(run, asked):
    code, _, err = run("--from", "20261101")
    assert code == 2
    assert "'20261101' is not a day such as 2026-11-01" in err


def test_a_state_that_is_not_there_is_refused(run, tmp_path):
    assert run(state="memory")[2].startswith("error: state: memory keeps no daily sums")
    assert run("--state", str(tmp_path / "no.db"))[::2] == (1, f"error: state: there is no file {tmp_path}/no.db\n")
    assert not (tmp_path / "no.db").exists()


def test_a_state_that_counted_nothing_says_so(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "nothing was counted" in out
    assert "note: prod: there are no daily sums of it" in out


def test_a_broken_state_is_refused(run, tmp_path):
    (tmp_path / "broken.db").write_bytes(b"no database at all" * 100)
    code, out, err = run("--state", str(tmp_path / "broken.db"))
    assert (code, out) == (1, "")
    assert err.startswith("error: state file ")


def test_one_agentos_is_asked_for_by_its_name(run, asked):
    assert run("--agentos", "prod")[0] == 0
    assert asked[0][0] == "prod"


def test_keys_are_given_with_commas_or_one_by_one(run, asked):
    for arguments in (["--by", "day,agent"], ["--by", "day", "--by", "agent"]):
        _, out, _ = run(*arguments, "--output", "json")
        assert json.loads(out)["by"] == ["day", "agent"]


def test_csv_goes_to_standard_output_and_notes_do_not(run, asked):
    _, out, err = run("--output", "csv")
    assert [one["model"] for one in csv.DictReader(io.StringIO(out))] == ["gpt", "house"]
    assert "note: 9 tokens of model house have no price: the cost is at least what is shown\n" in err


def test_dimensions_and_users_of_the_configuration_are_there(run, asked):
    more = {"dimensions": {"tenant": "tag.tenant"}, "labels": {"user": "plain"}}
    assert "acme" in run("--by", "tenant", **more)[1]
    assert "alice" in run("--by", "user", **more)[1]
    _, page, _ = run("--output", "html", **more)
    assert page.startswith("<!DOCTYPE html>")
    titles = [f"<h2>By {key}</h2>" for key in ("model", "agent", "tenant", "user")]
    assert [title for title in titles if title in page] == titles
    assert "<h2>By user</h2>" not in run("--output", "html")[1]


def test_a_page_begins_with_what_was_asked_for(run, asked):
    _, page, _ = run("--output", "html", "--by", "agent")
    assert page.index("<h2>By agent</h2>") < page.index("<h2>By model</h2>")
    assert page.count("<h2>By agent</h2>") == 1


def test_a_pipe_gets_whole_lines_and_a_terminal_is_respected(run, monkeypatch):
    name = "m" * 120
    label = ("prod", "R", "A", "openai", name, "input", "listed")
    rows = (DaySum("prod", TODAY, "agentos_llm_cost_usd_total", label, USD),)
    monkeypatch.setattr(connect, "look_at_days", lambda *_: Days({"prod": SINCE}, rows))
    assert name in run()[1]
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run()
    assert name not in out
    assert max(map(len, out.splitlines())) <= 80
