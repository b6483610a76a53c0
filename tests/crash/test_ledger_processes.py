"""A state file and processes that end, are killed or may not write."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.core.errors import StateRefused
from exporter.ledger.store import Ledger
from tests.harness.ledgers import refused

ROOT = Path(__file__).parents[2]


def test_a_second_daemon_is_refused_until_the_first_is_gone(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    with pytest.raises(StateRefused, match="another agentos-exporter"):
        Ledger(path)
    code = f"from pathlib import Path; from exporter.ledger.store import Ledger; Ledger(Path({str(path)!r}))"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "another agentos-exporter is using it" in other.stderr
    ledger.close()
    Ledger(path).close()


def test_a_killed_daemon_leaves_all_it_committed_and_no_lock(tmp_path):
    path = tmp_path / "state.db"
    code = f"""
import os, signal
from pathlib import Path
from exporter.ledger.store import Ledger
from tests.harness.ledgers import changes
ledger = Ledger(Path({str(path)!r}))
for number in range(5):
    ledger.commit(changes(f"t{{number}}"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )
    assert killed.returncode == -9
    ledger = Ledger(path)
    assert len(ledger.records("os", [f"t{number}" for number in range(9)])) == 5
    ledger.close()


# Files that are refused, and left as they are


def test_a_database_of_others_whose_owner_was_killed_is_left_as_it_is(tmp_path):
    path = tmp_path / "state.db"
    code = f"""
import os, sqlite3
theirs = sqlite3.connect({str(path)!r})
theirs.execute("PRAGMA journal_mode = wal")
theirs.execute("CREATE TABLE precious (x)")
theirs.commit()
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert path.with_name("state.db-wal").stat().st_size
    refused(path, "not a state file of agentos-exporter")


# A disk that is full


def test_a_file_that_may_not_grow_commits_nothing_and_is_recovered_from(tmp_path):
    """By a limit of the operating system, which SQLite sees as a write that fails."""
    path = tmp_path / "state.db"
    code = f"""
import resource, signal
from pathlib import Path
from exporter.core.errors import StateError
from exporter.ledger.store import Ledger
from tests.harness.ledgers import changes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path({str(path)!r}))
ledger.commit(changes("before"))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    ledger.commit(changes("big", spans=range(100_000)))
except StateError as error:
    print(type(error).__name__, error)
print(sorted(ledger.records("os", ["before", "big"])))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ledger.commit(changes("big", spans=range(100_000)))
print(sorted(ledger.records("os", ["before", "big"])))
ledger.close()
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said, refused_then, there_after = ran.stdout.splitlines()
    assert said.startswith("StateError state file")
    assert (refused_then, there_after) == ("['before']", "['before', 'big']")
    ledger = Ledger(path)
    assert len(ledger.records("os", ["big"])["big"][0].spans) == 100_000
    ledger.close()
