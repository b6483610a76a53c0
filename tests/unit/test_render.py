import gzip
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import metrics_core
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.metrics import render
from exporter.metrics.catalog import METRICS, Kind, Metric
from exporter.metrics.increments import Exemplar
from exporter.metrics.render import Renderer, metric_family
from exporter.metrics.series import Family, Sample
from tests.harness.examples import examples
from tests.harness.families import AT, COUNTER, GAUGE, HISTOGRAM, TRACE, a_sample, full, some


def own(text: bytes) -> str:
    """Without process_* and python_info, which differ from run to run."""
    head, _, _ = text.decode().partition("# HELP process_")
    return head.partition("# HELP python_info")[0]


def series(metrics: Sequence[metrics_core.Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    found = [
        ((sample.name, tuple(sorted(sample.labels.items()))), sample.value)
        for metric in metrics
        for sample in metric.samples
        if not sample.name.startswith(("process_", "python_info"))
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_golden_text(golden):
    golden("exposition.txt", own(Renderer().render(some()).text))


def test_golden_openmetrics(golden):
    golden("exposition.openmetrics.txt", own(Renderer().render(some()).openmetrics))


def test_both_formats_hold_the_whole_and_end_as_they_must():
    rendered = Renderer().render(full())
    for text in (rendered.text, rendered.openmetrics):
        assert b"\n\n" not in text
        assert b"_created" not in text
        assert [name for name in METRICS if f"\n{name.removesuffix('_total')}".encode() not in b"\n" + text] == []
    assert rendered.openmetrics.endswith(b"\n# EOF\n")
    assert rendered.openmetrics.count(b"# EOF") == 1
    assert b"# EOF" not in rendered.text
    assert rendered.text.endswith(b"\n")


def test_gzip_holds_the_same_bytes_and_depends_on_nothing_else():
    rendered = Renderer().render(full())
    assert gzip.decompress(rendered.text_gzip) == rendered.text
    assert gzip.decompress(rendered.openmetrics_gzip) == rendered.openmetrics
    assert render._gzip(rendered.text) == rendered.text_gzip


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_is_read_anew_each_time(monkeypatch):
    renderer = Renderer()
    text = renderer.render([]).text
    assert b"\nprocess_resident_memory_bytes " in text
    assert b"\npython_info{" in text

    readings = iter((1.0, 2.0))
    monkeypatch.setattr(
        renderer._own[0],
        "collect",
        lambda: [metrics_core.CounterMetricFamily("process_cpu_seconds", "CPU.", value=next(readings))],
    )
    assert b"process_cpu_seconds_total 1.0" in renderer.render([]).text
    assert b"process_cpu_seconds_total 2.0" in renderer.render([]).text


def test_an_unchanged_family_is_not_rendered_again(monkeypatch):
    rendered = []

    def spy(family: Family) -> metrics_core.Metric:
        rendered.append(family.metric.name)
        return metric_family(family)

    monkeypatch.setattr(render, "metric_family", spy)
    renderer = Renderer()
    counter, gauge, histogram = some()

    before = renderer.render([counter, gauge, histogram])
    assert rendered == [COUNTER.name, GAUGE.name, HISTOGRAM.name]

    rendered.clear()
    changed = replace(gauge, version=10, samples=(Sample(("prod",), 5_000_000),))
    after = renderer.render([counter, changed, histogram])
    assert rendered == [GAUGE.name]
    assert own(after.text) == own(before.text).replace(
        'agentos_exporter_last_success_timestamp_seconds{agentos="prod"} 1.763617800123456e+09\n'
        'agentos_exporter_last_success_timestamp_seconds{agentos="staging"} 0.0\n',
        'agentos_exporter_last_success_timestamp_seconds{agentos="prod"} 5.0\n',
    )

    rendered.clear()
    renderer.render([histogram])
    renderer.render([counter, histogram])
    assert rendered == [COUNTER.name], "what was left out is not remembered"


def test_the_order_is_that_of_the_families_and_empty_ones_are_left_out():
    counter, gauge, histogram = some()
    text = own(Renderer().render([histogram, replace(counter, samples=()), gauge]).text)
    assert [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")] == [HISTOGRAM.name, GAUGE.name]


def test_exemplars_show_in_openmetrics_alone():
    rendered = Renderer().render(full())
    assert TRACE.encode() not in rendered.text
    found = [
        (metric.name, sample.exemplar)
        for metric in parse_openmetrics(rendered.openmetrics.decode())
        for sample in metric.samples
        if sample.exemplar
    ]
    assert {name for name, _ in found} == {m.name.removesuffix("_total") for m in METRICS.values() if m.exemplars}
    for _, exemplar in found:
        assert exemplar.labels == {"trace_id": TRACE}
        assert float(exemplar.timestamp) == AT / 1e6


@pytest.mark.parametrize(
    ("trace_id", "shown"),
    [
        ("x" * 120, True),
        ("x" * 121, False),
        ("", False),
        ('a"b', False),
        ("\ud800", False),
        (f"{TRACE}\n", False),
    ],
)
def test_exemplars_that_prometheus_would_refuse_are_left_out(trace_id, shown):
    family = Family(COUNTER, 1, (replace(a_sample(COUNTER), exemplars=(Exemplar(trace_id, 1, AT),)),))
    text = Renderer().render([family]).openmetrics.decode()
    exemplar = next(iter(parse_openmetrics(text))).samples[0].exemplar
    assert (exemplar is not None) is shown
    if exemplar:
        assert sum(map(len, (*exemplar.labels, *exemplar.labels.values()))) <= 128


def test_half_a_surrogate_pair_costs_no_other_metric():
    family = Family(COUNTER, 1, (a_sample(COUNTER, "\ud800"), a_sample(COUNTER, "fine")))
    text = Renderer().render([family]).text.decode()
    assert r'tool="\\ud800"' in text
    assert 'tool="fine"' in text


@pytest.mark.parametrize(
    "family",
    [
        Family(COUNTER, 1, (Sample(("too", "few"), 1),)),
        Family(HISTOGRAM, 1, (Sample(("a", "b"), counts=(1, 2, 3), total=1),)),
        Family(HISTOGRAM, 1, (Sample(("a", "b"), counts=(0,) * 16, total=1, exemplars=(None,)),)),
    ],
    ids=["labels", "buckets", "exemplars"],
)
def test_a_sample_that_does_not_fit_its_metric_is_refused(family):
    with pytest.raises(ValueError, match=r"labels|shorter"):
        Renderer().render([family])


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (0, "0.0"),
        (1, "1e-06"),
        (100_000, "0.1"),
        (300_000, "0.3"),
        (1_100_000, "1.1"),
        (3 * 1_100_000, "3.3"),
        (123_456_789_012_345, "1.23456789012345e+08"),
    ],
)
def test_sums_of_microseconds_carry_no_float_noise(stored, shown):
    family = Family(HISTOGRAM, 1, (replace(a_sample(HISTOGRAM), total=stored),))
    assert f'duration_seconds_sum{{agentos="x",tool="x"}} {shown}\n' in Renderer().render([family]).text.decode()


@pytest.mark.parametrize("stored", [0, 1, 999_999, 1_000_000, 123_456_789, 2**53, 10**15 + 1])
def test_integers_are_shown_exactly(stored):
    family = Family(COUNTER, 1, (replace(a_sample(COUNTER), value=stored),))
    line = next(line for line in Renderer().render([family]).text.decode().splitlines() if not line.startswith("#"))
    assert int(float(line.rpartition(" ")[2])) == stored


label_values = st.one_of(
    st.text(max_size=20),
    st.text(alphabet='\\"\n\r\t {},=#é研\x00\x85\u2028', max_size=12),
)
whole = st.integers(min_value=0, max_value=2**53)


@st.composite
def families(draw: st.DrawFn) -> list[Family]:
    chosen = draw(st.lists(st.sampled_from(list(METRICS.values())), min_size=1, max_size=4, unique=True))
    return [Family(metric, 1, tuple(draw(samples_of(metric)))) for metric in chosen]


@st.composite
def samples_of(draw: st.DrawFn, metric: Metric) -> list[Sample]:
    places = len(metric.buckets) + 1
    found = []
    for labels in draw(
        st.lists(st.tuples(*(label_values for _ in metric.labels)), min_size=1, max_size=3, unique=True)
    ):
        if metric.kind is Kind.HISTOGRAM:
            counts = draw(st.lists(st.integers(0, 10**9), min_size=places, max_size=places))
            found.append(Sample(labels, counts=tuple(counts), total=draw(whole)))
        else:
            found.append(Sample(labels, value=draw(whole)))
    return found


def expected(family: Family) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    metric = family.metric
    found = {}
    for sample in family.samples:
        labels = dict(zip(metric.labels, sample.labels, strict=True))
        if metric.kind is not Kind.HISTOGRAM:
            found[metric.name, tuple(sorted(labels.items()))] = sample.value / metric.unit
            continue
        running = 0
        for bound, count in zip([*metric.buckets, None], sample.counts, strict=True):
            running += count
            le = "+Inf" if bound is None else render._go(bound / metric.unit)
            found[f"{metric.name}_bucket", tuple(sorted({**labels, "le": le}.items()))] = running
        found[f"{metric.name}_count", tuple(sorted(labels.items()))] = running
        found[f"{metric.name}_sum", tuple(sorted(labels.items()))] = sample.total / metric.unit
    return found


@examples(150)
@given(families())
def test_what_is_parsed_back_is_what_was_stored(drawn):
    rendered = Renderer().render(drawn)
    wanted = {key: value for family in drawn for key, value in expected(family).items()}
    assert series(list(parse_text(rendered.text.decode()))) == wanted
    assert series(list(parse_openmetrics(rendered.openmetrics.decode()))) == wanted


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_the_catalog_knows_how_many_time_series_a_label_set_is(metric: Metric) -> None:
    assert len(metric_family(Family(metric, 1, (a_sample(metric),))).samples) == metric.series
