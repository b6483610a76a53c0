"""What is written into tables that then fail, and how polls end meanwhile."""

from datetime import UTC, datetime, timedelta

from tests.harness import seed, truth
from tests.harness.exporter import RunningExporter, total

NAME = "it"
SMALL = (50, 80)
FAST = {"overlap": "2s"}


def write(database: str, number: int, traces: int = 30) -> None:
    """Write finished traces, the last one of which ends now, all of them now."""
    at, spread = datetime.now(UTC), timedelta(seconds=5)
    seed.seed(database, traces, until=at, spread=spread, prompt_bytes=SMALL, number=number, errors=0.2, written=at)


def outcomes(samples: truth.Totals) -> dict[str, float]:
    return {
        dict(labels)["outcome"]: value
        for (name, labels), value in samples.items()
        if name == "agentos_exporter_polls_total" and value
    }


def wait_for(exporter: RunningExporter, outcome: str, *, more: int = 1) -> truth.Totals:
    """Wait until so many more polls ended like this, and return what is shown then."""
    name = "agentos_exporter_polls_total"
    wanted = exporter.total(name, outcome=outcome) + more
    try:
        truth.wait_until(lambda: exporter.total(name, outcome=outcome) >= wanted, pause=0.1)
    except TimeoutError:
        raise AssertionError(f"no poll ended with {outcome}: {outcomes(exporter.samples())}") from None
    return exporter.samples()


def fails(exporter: RunningExporter, outcome: str, *says: str, expected: truth.Truth | None = None) -> None:
    """Wait until polls end like this, alone; the log says why; what was counted stays."""
    known = set(outcomes(exporter.samples()))
    samples = wait_for(exporter, outcome, more=2)
    assert set(outcomes(samples)) <= known | {outcome}
    assert total(samples, "agentos_up") == 0
    if expected is not None:
        assert truth.difference(expected.totals, samples) == []
    errors = "\n".join(line for line in exporter.logs.splitlines() if "level=warn" in line or "level=error" in line)
    assert errors
    for text in says:
        assert text in errors, f"{text!r} is not in:\n{errors}"


def healthy(samples: truth.Totals, *, resets: int = 0) -> None:
    assert total(samples, "agentos_up") == 1
    assert total(samples, "agentos_exporter_source_resets_total") == resets
    assert total(samples, "agentos_exporter_ignored_traces_total") == 0
    assert total(samples, "agentos_exporter_hidden_spans_total") == 0
    assert total(samples, "agentos_exporter_open_traces") == 0
