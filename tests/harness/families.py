"""Families of samples: of every metric of the catalog, and of some."""

from exporter.metrics.catalog import METRICS, Kind, Metric
from exporter.metrics.increments import Exemplar
from exporter.metrics.series import Family, Sample

COUNTER = METRICS["agentos_tool_call_errors_total"]
GAUGE = METRICS["agentos_exporter_last_success_timestamp_seconds"]
HISTOGRAM = METRICS["agentos_tool_call_duration_seconds"]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
AT = 1_763_617_800_123_456


def a_sample(metric: Metric, label: str = "x") -> Sample:
    labels = tuple(label for _ in metric.labels)
    if metric.kind is Kind.HISTOGRAM:
        places = len(metric.buckets) + 1
        exemplars = tuple(Exemplar(TRACE, bound, AT) for bound in (*metric.buckets, metric.buckets[-1] + 1))
        return Sample(
            labels, counts=tuple(range(places)), total=12_345_678, exemplars=exemplars if metric.exemplars else ()
        )
    exemplars = (Exemplar(TRACE, 1, AT),) if metric.exemplars else ()
    return Sample(labels, value=7_000_000, exemplars=exemplars)


def full(version: int = 1) -> list[Family]:
    """Every metric of the catalog with two series (one where it has no labels)."""
    return [
        Family(metric, version, tuple(a_sample(metric, label) for label in ("one", "two")[: 2 if metric.labels else 1]))
        for metric in METRICS.values()
    ]


def some() -> list[Family]:
    """A family of each kind."""
    slots: list[Exemplar | None] = [None] * (len(HISTOGRAM.buckets) + 1)
    slots[3] = Exemplar(TRACE, 612_345, AT)
    slots[-1] = Exemplar(TRACE, 4_000_000_001, AT)
    counts = [0] * len(slots)
    counts[0], counts[3], counts[-1] = 5, 2, 1
    return [
        Family(
            COUNTER,
            3,
            (
                Sample(("prod", "Desk", "Researcher", "search", "other"), 2, exemplars=(Exemplar(TRACE, 1, AT),)),
                Sample(("prod", "Desk", "", 'say "hi"\n\\o/', "ValueError"), 12_345_678_901),
                Sample(("prod", "Büro", "研究", "", "other"), 0),
            ),
        ),
        Family(GAUGE, 9, (Sample(("prod",), AT), Sample(("staging",), 0))),
        Family(
            HISTOGRAM,
            4,
            (Sample(("prod", "search"), counts=tuple(counts), total=4_003_000_003, exemplars=tuple(slots)),),
        ),
    ]
