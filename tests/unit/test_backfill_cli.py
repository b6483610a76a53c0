"""`agentos-exporter backfill`: what it reads, where it ends, and what it refuses; on a database of SQLite."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from exporter.backfill.work import Work
from exporter.cli import main as cli
from exporter.core.times import parse
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from tests.harness import seed
from tests.harness.commands import surroundings
from tests.harness.exporter import reads
from tests.harness.ledgers import changes

UNTIL = datetime(2026, 11, 20, 6, tzinfo=UTC)
SEAM = "2026-11-19T18:00:00.000000+00:00"


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch):
    with surroundings(monkeypatch):
        yield


@pytest.fixture
def place(tmp_path):
    """A folder with the runs of two days, one at the end of each hour, and a configuration that reads them."""
    database = f"sqlite:{tmp_path / 'agno.db'}"
    seed.seed(database, 48, until=UNTIL, spread=timedelta(days=2), prompt_bytes=(50, 80))
    configure(tmp_path)
    return tmp_path


def configure(folder, **more):
    one = {"name": "os", **reads(f"sqlite:{folder / 'agno.db'}")}
    config = {"state": str(folder / "state.db"), "agentos": [one], **more}
    (folder / "exporter.yml").write_text(json.dumps(config))


def run(folder, *arguments, begin="2026-11-18T06:00Z"):
    given = ["--config.file", folder / "exporter.yml", "--from", begin, "--output", folder / "past.om", "--step", "5m"]
    return cli.main(["backfill", *map(str, given), *arguments])


def begun(folder):
    """Let a daemon have begun in the midst of it."""
    ledger = Ledger(folder / "state.db")
    ledger.commit(changes(totals=Totals(Limits(), zero_hold=0), cursor=("db", {"floor": parse(SEAM)})))
    ledger.close()


def runs(folder):
    """Return how many runs the last sample shows; what ended at that very moment is the daemon's."""
    lines = [line for line in (folder / "past.om").read_text().splitlines() if line.startswith("agentos_runs_total")]
    last = {}
    for line in lines:
        series, value, at = line.rsplit(" ", 2)
        last.setdefault(series, []).append((float(at), float(value)))
    return sum(values[-2][1] for values in last.values())


def test_it_ends_where_the_daemon_began(place, capsys):
    begun(place)
    before = (place / "state.db").read_bytes()
    for arguments in ((), ("--to", "2026-11-20T07:00Z")):
        assert run(place, *arguments) == 0
        assert runs(place) == 35
        said = capsys.readouterr().err
        assert f"ends at {SEAM}, where the counters of the daemon begin" in said
        assert "35 traces, 140 spans, 1 file\n" in said
        (place / "past.om").unlink()
    assert "warning" not in said
    assert (place / "state.db").read_bytes() == before
    assert not list(place.glob("past.om*"))


def test_nothing_that_is_there_is_overwritten(place, capsys):
    begun(place)
    (place / "past.om").write_text("mine")
    assert run(place) == 1
    assert "past.om is there already; remove it, or name another place" in capsys.readouterr().err
    assert (place / "past.om").read_text() == "mine"
    assert not list(place.glob("past.om.*"))


def test_a_backfill_that_was_killed_while_it_wrote_writes_once_more(place):
    begun(place)
    assert run(place) == 0
    whole = (place / "past.om").read_bytes()
    (place / "past.om").unlink()
    removed = Work.remove
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Work, "remove", lambda work: (_ for _ in ()).throw(OSError("killed")))
        assert run(place) == 1
    assert Work.remove is removed
    assert run(place) == 0
    assert (place / "past.om").read_bytes() == whole


def test_nothing_ended_in_that_time(place, capsys):
    begun(place)
    assert run(place, "--to", "2026-11-18T06:05Z") == 0
    assert "no trace ended between --from and the end" in capsys.readouterr().err


def test_a_refused_backfill_leaves_nothing_in_the_way(place, capsys):
    begun(place)
    configure(place, agentos=[{"name": "os", **reads(f"sqlite:{place / 'none.db'}")}])
    assert run(place) == 1
    assert "again_in" not in capsys.readouterr().err
    configure(place)
    assert run(place) == 0


def test_it_may_end_earlier(place):
    begun(place)
    assert run(place, "--to", "2026-11-19T06:00Z") == 0
    assert runs(place) == 23


def test_without_a_state_it_must_be_told_and_warns(place, capsys):
    assert run(place) == 1
    assert "--to: is needed: the state does not say since when the daemon counts os" in capsys.readouterr().err
    assert run(place, "--to", "2026-11-20T07:00Z") == 0
    assert "warning: the state knows nothing of os" in capsys.readouterr().err
    assert runs(place) == 48


def test_a_folder_gets_a_file_for_each_day(place):
    folder = place / "past.om"
    folder.mkdir()
    assert run(place, "--to", "2026-11-20T07:00Z") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["2026-11-18.om", "2026-11-19.om", "2026-11-20.om"]


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        (["--to", "2126-11-20"], {}, "--to: lies in the future"),
        (["--to", "2026-11-18T06:00:30Z"], {}, "--from: must be at least 5m before 2026-11-18T06:00:30.000000+00:00"),
        (["--agentos", "none"], {}, "--agentos: name one AgentOS of the configuration: os"),
        (["--label", "job"], {}, "--label: 'job' is not a label such as job=agentos-exporter"),
        (["--label", "__name__=x"], {}, "--label: '__name__=x' is not a label"),
        (["--label", "model=x"], {}, "--label: model is a label of the metrics themselves"),
        (["--label", "job=x", "--label", "job=y"], {}, "--label: job is given twice"),
        (["--output", "/nowhere/past.om"], {}, "--output: there is no folder /nowhere"),
        (["--output", "/dev/null"], {}, "--output: /dev/null is no regular file"),
        (["--output", "{file}/"], {}, "exporter.yml is a file, not a folder"),
        (["--to", "2026-11-20"], {"labels": {"user": "hashed"}}, "labels.user: hashed: the state has no key for it"),
        (["--to", "2026-11-20"], {"prices": "none.yml"}, "prices: "),
    ],
)
def test_what_it_refuses(place, capsys, arguments, more, message):
    configure(place, **more)
    assert run(place, *(argument.format(file=place / "exporter.yml") for argument in arguments)) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (place / "past.om").exists()


def test_another_backfill_of_the_same_name_is_refused(place, capsys):
    Work(place / "past.om.backfill", {"of": "another"}).close()
    assert run(place, "--to", "2026-11-20") == 1
    assert "of a backfill with other arguments" in capsys.readouterr().err


def test_a_state_that_is_none_is_refused(place, capsys):
    with sqlite3.connect(place / "state.db") as connection:
        connection.execute("CREATE TABLE cursors (agentos TEXT)")
    assert run(place, "--to", "2026-11-20") == 1
    assert "its schema is 0" in capsys.readouterr().err
