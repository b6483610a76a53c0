"""Faults put into the product by hand: `make test` must notice each of them.

Each fault is a change of a line or two in a copy of the checkout; the tests that ought to notice run there and must
fail. They are named for speed alone: all of them belong to `make test`. Without a fault the same tests must pass.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DAEMON = ("tests/daemon/test_counting.py", "tests/daemon/test_money.py", "tests/daemon/test_outages.py")
CRASH = ("tests/crash",)


def unit(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_{name}.py" for name in names)


@dataclass(frozen=True)
class Fault:
    """`old` stands once in `file` and becomes `new`; `noticed` are the tests that fail then."""

    file: str
    old: str
    new: str
    noticed: tuple[str, ...]


_COMMIT = "        with self.transaction(write=True, agentos=changes.agentos, lease=changes.lease) as connection:\n"

FAULTS = {
    "a span counts each time it is read": Fault(
        "exporter/counting/fold.py",
        "if kind is _HTTP or span.id in counted:",
        "if kind is _HTTP:",
        unit("fold", "intake"),
    ),
    "the overlap is left out where the cursor advances": Fault(
        "exporter/sources/api/reader.py",
        "reached = min(position.newest, cap) - overlap",
        "reached = min(position.newest, cap)",
        unit("api_readers"),
    ),
    "the daemon passes no overlap on": Fault(
        "exporter/service/fleet.py", "overlap=round(config.overlap * MICROSECONDS),", "overlap=0,", DAEMON
    ),
    "errors count twice": Fault(
        "exporter/metrics/increments.py",
        "        self.add(metric, labels)\n        self._remember",
        "        self.add(metric, labels, 2)\n        self._remember",
        unit("fold"),
    ),
    "a sum of a day forgets the one before": Fault(
        "exporter/ledger/store.py", "before.get(row[1], 0) + amount", "amount", unit("daily")
    ),
    "why a call failed is passed over": Fault(
        "exporter/counting/fold.py", "span.model, span.error_class)", 'span.model, "other")', unit("fold")
    ),
    "a blocked run counts with each detail": Fault(
        "exporter/counting/run_details.py", "detail.guardrail and not counted:", "detail.guardrail:", unit("enrich")
    ),
    "no run waits to hear whether it was blocked": Fault(
        "exporter/counting/fold.py", "delta.waiting += _checks(", "() and _checks(", unit("enrich")
    ),
    "calls are priced at the time of reading": Fault(
        "exporter/counting/cashier.py", "            at=span.start,\n", "            at=4102444800000000,\n", DAEMON
    ),
    "the date of a price is passed over": Fault(
        "exporter/pricing/prices.py",
        "builtin.rule, builtin.at(at))",
        "builtin.rule, builtin.at(4102444800000000))",
        unit("pricing"),
    ),
    "a new series shows its value at once": Fault(
        "exporter/metrics/totals.py", " and monotonic - self._scrapes[place][1] >= self._zero_hold", "", unit("totals")
    ),
    "the daemon passes no zero_hold on": Fault(
        "exporter/service/daemon.py", "zero_hold=config.zero_hold, ", "zero_hold=0, ", DAEMON
    ),
    "a dropped label is counted": Fault(
        "exporter/metrics/totals.py", '            folded[position] = ""\n', "            pass\n", unit("totals")
    ),
    "a dropped label uses up admissions": Fault(
        "exporter/metrics/totals.py",
        "for position in dropped:\n            folded[position]",
        "for position in dropped:\n            self._admit(metric.labels[position], labels[position])\n"
        "            folded[position]",
        unit("totals"),
    ),
    "a reload drops no labels": Fault(
        "exporter/service/reload.py", "dropped=new.dropped_labels)", "dropped={})", ("tests/daemon/test_reload.py",)
    ),
    "the cursor is committed before what it stands for": Fault(
        "exporter/ledger/store.py",
        f"{_COMMIT}            statements.write_traces(connection, [trace_row",
        "        if changes.cursor is not None:\n"
        "            with self.transaction(write=True) as connection:\n"
        "                db, data = changes.cursor\n"
        "                statements.write_cursors(connection, [(changes.agentos, db, json.dumps(dict(data)))])\n"
        f"{_COMMIT}            statements.write_traces(connection, [trace_row",
        CRASH,
    ),
    "the position moves before its batch is committed": Fault(
        "exporter/sources/api/reader.py",
        "        yield Batch(self.db, cursor=self._cursor(**moved), as_of=date)\n        self._moved(**moved)",
        "        self._moved(**moved)\n        yield Batch(self.db, cursor=self._cursor(**moved), as_of=date)",
        unit("api_readers"),
    ),
    "totals show before they are committed": Fault(
        "exporter/bookkeeping/shared.py",
        "        self.ledger.commit(changes)\n",
        "        self.totals.apply(changes.plan)\n        self.ledger.commit(changes)\n        return\n",
        unit("intake"),
    ),
    "values show before it is committed that they were exposed": Fault(
        "exporter/service/publisher.py",
        "                await asyncio.to_thread(self._ledger.expose, self._totals.durable(due))\n"
        "                self._totals.show(due)",
        "                self._totals.show(due)\n"
        "                await asyncio.to_thread(self._ledger.expose, self._totals.durable(due))",
        CRASH,
    ),
    "polls that fail are not followed by a pause": Fault(
        "exporter/service/poller.py", "self._not_before = clock.monotonic() + self._pause(error)", "pass", DAEMON
    ),
    "an empty answer is always believed": Fault(
        "exporter/sources/api/reader.py",
        "        if not position.sentinels:\n            if position.seen:",
        "        if True:\n            if position.seen:",
        unit("api_readers"),
    ),
    "nobody tells that there was a scrape": Fault(
        "exporter/service/publisher.py",
        "        self._totals.scraped(self._version if version is None else version, self._clock.monotonic())",
        "        pass",
        DAEMON,
    ),
    "the daemon passes no trace_horizon on": Fault(
        "exporter/service/fleet.py", "        horizon=config.trace_horizon,", "        horizon=1e9,", DAEMON
    ),
    "details of runs are never asked for": Fault(
        "exporter/service/fleet.py", "        enriches=enricher.active,\n", "", DAEMON
    ),
    "commits and exposing are not kept apart": Fault(
        "exporter/service/publisher.py",
        "            async with self._shared.lock:\n                due",
        "            if True:\n                due",
        CRASH,
    ),
    "a 0 that was pushed is not seen": Fault(
        "exporter/service/push/target.py", "self._publisher.scraped(snapshot.version)", "pass", unit("push")
    ),
    "what was pushed in vain waits for the next interval": Fault(
        "exporter/service/push/target.py", "        if self._failures:\n", "        if False:\n", unit("push")
    ),
    "what ends is not told to who is pushed to": Fault(
        "exporter/metrics/render.py", "                if rows:\n", "                if False:\n", unit("push")
    ),
    "Retry-After is passed over": Fault(
        "exporter/service/poller.py", "return max(pause, min(asked or 0.0, BACKOFF_LIMIT))", "return pause", DAEMON
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout."""
    place = tmp_path_factory.mktemp("copy") / "checkout"
    left_out = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "dist", "build", ".hypothesis")
    shutil.copytree(ROOT, place, ignore=left_out)
    return place


def run_there(place: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """Run tests of a copy, up to the first that fails."""
    alone = ("-p", "no:randomly", "-p", "no:cacheprovider", "-m", "not slow and not compat")
    command = (sys.executable, "-m", "pytest", "-q", "-x", "--tb=line", "--show-capture=no", *alone, *files)
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)


def test_without_a_fault_they_pass(copy: Path) -> None:
    files = dict.fromkeys(file for fault in FAULTS.values() for file in fault.noticed)
    done = run_there(copy, *files)
    assert done.returncode == pytest.ExitCode.OK, done.stdout[-4000:]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_noticed(copy: Path, name: str) -> None:
    fault = FAULTS[name]
    path = copy / fault.file
    sound = path.read_text()
    assert sound.count(fault.old) == 1, "the code has moved on: write the fault anew"
    path.write_text(sound.replace(fault.old, fault.new))
    try:
        done = run_there(copy, *fault.noticed)
    finally:
        path.write_text(sound)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout[-4000:]
    print(next(line for line in done.stdout.splitlines() if line.startswith("FAILED")))
