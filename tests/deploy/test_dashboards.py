"""The boards: no drift from the catalog, the rules and their own program; honest, complete, and fit for Grafana."""

from __future__ import annotations

import itertools
import json
import re
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.mixin import dashboards
from deploy.mixin.dashboards.metrics import FOREIGN, LEVELS, SCRAPE
from deploy.mixin.settings import Settings
from exporter.metrics.catalog import METRICS, Kind
from exporter.metrics.render import EXEMPLAR_LABEL
from tests.harness import panels
from tests.harness.promql import Selector, kept, selectors

ROOT = Path(__file__).parents[2]
RULES = [
    rule
    for path in sorted((ROOT / "deploy" / "prometheus").glob("rules-*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
]
RECORDED = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
BOARDS = panels.boards()
PANELS = [(uid, panel) for uid, board in BOARDS.items() for panel in panels.panels(board)]
ASKED = list(panels.asked())
UIDS = {
    "agentos-overview",
    "agentos-cost",
    "agentos-agent",
    "agentos-models",
    "agentos-tools",
    "agentos-slo",
    "agentos-operations",
    "agentos-quality",
    "agentos-exporter",
}


def each_panel():
    return pytest.mark.parametrize(("uid", "panel"), PANELS, ids=[f"{uid}:{panel['title']}" for uid, panel in PANELS])


def each_query():
    return pytest.mark.parametrize("asked", ASKED, ids=[f"{query.board}:{query.panel}:{query.ref}" for query in ASKED])


def each_board():
    return pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def exposed() -> dict[str, tuple[str, ...]]:
    """Every series that a query may name, with its labels."""
    found = dict(FOREIGN)
    for metric in METRICS.values():
        if metric.kind is Kind.HISTOGRAM:
            found |= {f"{metric.name}_{part}": (*SCRAPE, *metric.labels) for part in ("count", "sum")}
            found[f"{metric.name}_bucket"] = (*SCRAPE, *metric.labels, "le")
        else:
            found[metric.name] = (*SCRAPE, *metric.labels)
    return found | {name: LEVELS[name.partition(":")[0]] for name in RECORDED}


EXPOSED = exposed()


def family(name: str) -> str:
    """The metric of the catalog that a series belongs to, or its own name."""
    base = re.sub(r"_(bucket|count|sum)$", "", name)
    return base if base in METRICS else name


def raw(asked: panels.Asked) -> list[Selector]:
    return selectors(asked.raw)


# --- The reader of PromQL that the tests below trust ---------------------------------------------------------------


def test_selectors_are_found_with_what_is_around_them():
    rate, gauge = selectors(
        'topk(3, sum by (agent, le) (rate(a_total{job=~"$job", x!="}, (by"}[$__range] offset $__range))) '
        "/ on (agent) group_left (kind) max by (agent, kind) (clamp_min(deriv(g[1h]), 0)) > bool 1.5e3"
    )
    assert (rate.name, rate.ranged, rate.matchers) == ("a_total", True, {"job": '=~"$job"', "x": '!="}, (by"'})
    assert rate.around == [("rate", ()), ("sum", ("agent", "le")), ("topk", ())]
    assert (gauge.name, gauge.matchers) == ("g", {})
    assert gauge.around == [("deriv", ()), ("clamp_min", ()), ("max", ("agent", "kind"))]


def test_what_is_beside_an_aggregation_is_not_in_it():
    inside, outside = selectors("sum(a) / b")
    assert inside.around == [("sum", ())]
    assert outside.around == []


# --- No drift --------------------------------------------------------------------------------------------------------


def test_the_files_are_what_the_program_writes():
    made = dashboards.files(Settings())
    assert set(made) == {f"deploy/grafana/dashboards/{uid}.json" for uid in UIDS}
    for name, text in made.items():
        assert (ROOT / name).read_text() == text, f"{name}: run `python -m deploy.mixin`"
    assert {path.name for path in panels.DASHBOARDS.iterdir()} == {Path(name).name for name in made} | {".lint"}


def test_thresholds_of_ones_own_reach_the_boards():
    made = dashboards.files(Settings(latency_objective_seconds=120, run_success_target=0.995))
    slo = made["deploy/grafana/dashboards/agentos-slo.json"]
    assert r"le=~\"120|120\\\\.0\"" in slo
    assert "99.5 %" in slo
    assert "/ 0.005" in slo


@each_query()
def test_names_and_labels_exist(asked):
    found = raw(asked)
    assert found
    for one in found:
        assert one.name in EXPOSED, f"{one.name} is neither in the catalog nor recorded"
        labels = set(EXPOSED[one.name]) | set(re.findall(r'label_replace\([^,]*, "(\w+)"', asked.raw))
        assert set(one.matchers) <= labels, f"{one.name} has no {set(one.matchers) - labels}"
        for function, by in one.around:
            assert set(by) <= labels, f"{one.name} has no {set(by) - labels} to {function} by"


@each_board()
def test_variables_and_annotations_ask_for_what_exists(board):
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()
            (selector,) = selectors(series)
            assert {label, *selector.matchers} <= set(EXPOSED[selector.name])
    asking = [annotation["expr"] for annotation in board["annotations"]["list"] if "expr" in annotation]
    assert asking
    for one in itertools.chain.from_iterable(map(selectors, asking)):
        assert set(one.matchers) <= set(EXPOSED[one.name])


def test_every_metric_is_on_a_panel():
    shown = {family(selector.name) for asked in ASKED for selector in raw(asked)}
    assert set(METRICS) <= shown


def test_recorded_series_have_the_labels_of_their_level():
    target = {"cluster", "namespace", "job"}
    for name, expr in RECORDED.items():
        level = set(LEVELS[name.partition(":")[0]])
        for selector in selectors(expr):
            if ":" in selector.name:
                assert set(LEVELS[selector.name.partition(":")[0]]) == level, name
            else:
                by = [set(labels) - target - {"le"} for _, labels in selector.around if labels]
                assert by, f"{name}: {selector.name} is not aggregated"
                assert all(labels == level - target for labels in by), name


# --- Honest ----------------------------------------------------------------------------------------------------------


@each_query()
def test_unknown_is_not_zero(asked):
    assert "vector(" not in asked.raw
    assert "absent(" not in asked.raw
    # `or whole * 0`: none of what was seen failed. A bare number would be a zero where nothing was seen.
    for part in re.findall(r"\bor\b\s*(\w+)", asked.raw):
        assert part in {"sum", "label_replace"}


@each_query()
def test_errors_are_never_added_across_kinds_of_span(asked):
    for selector in raw(asked):
        if selector.name != "agentos_error_spans_total":
            continue
        sums = [by for function, by in selector.around if function == "sum"]
        assert sums
        assert all("span_kind" in by for by in sums) or selector.matchers.get("span_kind", "").startswith('="')


@each_query()
def test_counters_and_gauges_are_read_as_such(asked):
    for selector in raw(asked):
        functions = [function for function, _ in selector.around]
        metric = METRICS.get(family(selector.name))
        if metric is None:
            continue
        if metric.kind is Kind.GAUGE:
            # Two exporters may show the same gauge, and a restarted one does for five minutes.
            aggregated = [name for name in functions if name in {"sum", "min", "max", "count"}]
            assert aggregated, f"{selector.name} has all labels of the scrape"
            assert aggregated[0] in {"min", "max"}, f"{selector.name} would be added up over exporters"
        else:
            assert functions[0] in {"rate", "increase"}
            assert selector.ranged
            assert "sum" in functions


@each_query()
def test_what_replicas_hand_over_is_not_told_apart_by_replica(asked):
    """Its series have no `instance` where replicas are scraped, and elsewhere another one after each takeover."""
    for selector in raw(asked):
        if "agentos" in EXPOSED[selector.name] and selector.name != "agentos_exporter_leader":
            assert not {"instance", "pod"} & {*selector.matchers, *(label for _, by in selector.around for label in by)}


@each_panel()
def test_what_is_off_by_default_says_so(uid, panel):
    names = {family(selector.name) for target in panel["targets"] for selector in selectors(target["expr"])}
    if names & {"agentos_user_tokens_total", "agentos_user_cost_usd_total"}:
        assert "off by default" in panel["description"]
        assert "labels.user" in panel["fieldConfig"]["defaults"]["noValue"]
    if "agentos_llm_time_to_first_token_seconds" in names:
        assert "enrich_runs" in panel["description"]


@each_panel()
def test_what_a_filter_does_not_reach_is_said(uid, panel):
    """A board's variables narrow a panel only by labels that its metrics have: where they do not, it says so.

    `tool` and `budget` say in their own titles what they are for.
    """
    chosen = {name for name in panels.variables(BOARDS[uid]) if name not in {"job", "agentos", "tool", "budget"}}
    for target in panel["targets"]:
        for selector in selectors(target["expr"]):
            missed = {name for name in chosen if name not in selector.matchers}
            if uid == "agentos-agent":
                missed -= {"agent"} if "root" in selector.matchers else set()  # the roots are those of the agent
            if missed and selector.name not in FOREIGN and "_info" not in selector.name:
                said = re.search(
                    r"[Nn]ot filtered by|not told apart by|whole AgentOS|not filtered by", panel["description"]
                )
                assert said, f"{selector.name} knows nothing of {missed}"


def test_unpriced_tokens_stand_beside_the_cost():
    asking = {
        query.panel
        for query in ASKED
        if "agentos_llm_unpriced_tokens_total" in query.raw and query.board == "agentos-cost"
    }
    assert {"Unpriced tokens", "Where prices come from"} <= asking


@each_panel()
def test_money_says_how_sure_it_is(uid, panel):
    if panel["type"] in {"stat", "timeseries"} and "agentos_llm_cost_usd_total" in str(panel["targets"]):
        text = panel["description"]
        assert "estimated" in text or "known" in text, "say that cost can be estimated, and what is left out"


# --- Fit for Grafana -------------------------------------------------------------------------------------------------


def test_uids():
    assert set(BOARDS) == UIDS
    for uid, board in BOARDS.items():
        assert len(uid) <= 40
        assert board["schemaVersion"] >= 39
        assert "agentos" in board["tags"]
        assert board["description"]


@each_board()
def test_the_grid(board):
    numbers = [panel["id"] for panel in [*panels.panels(board), *(p for p in board["panels"] if p["type"] == "row")]]
    assert len(numbers) == len(set(numbers))
    groups = [board["panels"], *([row, *row["panels"]] for row in board["panels"] if row["type"] == "row")]
    for group in groups:
        taken: Counter[tuple[int, int]] = Counter()
        for panel in group:
            place = panel["gridPos"]
            assert place["x"] >= 0
            assert place["x"] + place["w"] <= 24
            taken.update(
                itertools.product(
                    range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
                )
            )
        assert max(taken.values()) == 1, f"panels overlap at {taken.most_common(1)}"


@each_board()
def test_titles_tell_panels_apart(board):
    titles = Counter(panel["title"] for panel in panels.panels(board))
    assert [title for title, count in titles.items() if count > 1] == []


@each_panel()
def test_a_panel_is_complete(uid, panel):
    assert panel["title"]
    assert panel["description"].endswith((".", "`"))
    assert panel["targets"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["fieldConfig"]["defaults"]["noValue"]
    assert not re.fullmatch(r"0|-|", panel["fieldConfig"]["defaults"]["noValue"])
    for one in (panel, *panel["targets"]):
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    refs = [target["refId"] for target in panel["targets"]]
    assert refs == sorted(set(refs))


@each_panel()
def test_legends_and_columns_are_labels_of_the_answer(uid, panel):
    arrange = [one["options"] for one in panel.get("transformations", ()) if one["id"] == "organize"]
    for target in panel["targets"]:
        used = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        assert set(used) <= kept(target["expr"])
    for options in arrange:
        named = {name for name in options["indexByName"] if not name.startswith("Value")}
        answered = set().union(*(kept(target["expr"]) for target in panel["targets"]))
        assert named == answered - {"le"}, "a column for each label, and no more"
        titles = set(options["renameByName"].values())
        assert len(titles) == len(options["renameByName"])
        overridden = {one["matcher"]["options"] for one in panel["fieldConfig"]["overrides"]}
        assert overridden <= titles
        assert {one["displayName"] for one in panel["options"]["sortBy"]} <= titles


@each_board()
def test_every_variable_is_used(board):
    exprs = " ".join(target["expr"] for panel in panels.panels(board) for target in panel["targets"])
    for name in panels.variables(board):
        assert f'=~"${name}"' in exprs, name
    assert (
        board["templating"]["list"][0] | {"type": "datasource", "query": "prometheus", "name": "datasource"}
        == (board["templating"]["list"][0])
    )


def urls(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["url"]] if isinstance(value.get("url"), str) and value["url"] else []
        return own + [url for inner in value.values() for url in urls(inner)]
    return [url for inner in value for url in urls(inner)] if isinstance(value, list) else []


def test_links_lead_somewhere():
    found = [(uid, url) for uid, board in BOARDS.items() for url in urls(board)]
    led = set()
    for uid, url in found:
        path, _, query = url.partition("?")
        target = path.removeprefix("/d/")
        assert target in BOARDS, f"{uid}: {url}"
        led.add(target)
        known = {variable["name"] for variable in BOARDS[target]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) <= known, f"{uid}: {url}"
        assert "${__url_time_range}" in query
        own = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}
        assert set(re.findall(r"\$\{(\w+):queryparam\}", query)) <= own & known, f"{uid}: {url}"
    assert {
        "agentos-agent",
        "agentos-cost",
        "agentos-models",
        "agentos-tools",
        "agentos-slo",
        "agentos-exporter",
    } <= led
    for board in BOARDS.values():
        assert [link["tags"] for link in board["links"]] == [["agentos"]]


@each_panel()
def test_a_cell_links_with_columns_of_its_table(uid, panel):
    for override in panel["fieldConfig"]["overrides"]:
        for one in override["properties"]:
            if one["id"] == "links":
                titles = set(panel["transformations"][-1]["options"]["renameByName"].values())
                columns = re.findall(r"\$\{__data\.fields(?:\.(\w+)|\[\"([^\"]+)\"\]):percentencode\}", str(one))
                assert len(columns) == str(one).count("__data") > 0, "as it is, an & in a name would end it"
                assert {a or b for a, b in columns} <= titles


def test_a_workflow_is_looked_up_as_a_root():
    """It is nobody's agent: as such its board would be empty."""
    for panel in panels.panels(BOARDS["agentos-overview"]):
        exprs = " ".join(target["expr"] for target in panel["targets"])
        if "agentos_component_info" in exprs:
            (link,) = (url for url in urls(panel) if url.startswith("/d/agentos-agent"))
            assert ('kind="workflow"' in exprs) is ("var-root=" in link)
            assert ('kind!="workflow"' in exprs) is ("var-agent=" in link)


def test_what_every_process_has_is_asked_of_exporters_alone():
    """`$job` with All is every job that there is."""
    for asked in ASKED:
        if {selector.name for selector in raw(asked)} & (set(FOREIGN) - {"ALERTS"}):
            assert "and on (job, instance) max by (job, instance) (" in asked.raw
            assert "agentos_exporter_build_info" in asked.raw


def test_alerts_lead_to_boards():
    alerts = [rule for rule in RULES if "alert" in rule]
    assert alerts
    (shown,) = {
        selector.matchers["alertname"] for asked in ASKED for selector in raw(asked) if selector.name == "ALERTS"
    }
    for rule in alerts:
        assert re.fullmatch(shown.removeprefix("=~").strip('"'), rule["alert"]), "no board would show that it fires"
        url = urllib.parse.urlsplit(re.sub(r"\s+", " ", rule["annotations"]["dashboard_url"]))
        uid = url.path.removeprefix("/d/")
        assert uid in BOARDS, rule["alert"]
        known = {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", url.query)) <= known, rule["alert"]


def test_exemplars_are_asked_for_where_there_are_some():
    asking = {family(selector.name) for asked in ASKED if asked.exemplar for selector in raw(asked)}
    carrying = {metric.name for metric in METRICS.values() if metric.exemplars}
    # A share's whole rides along with its part.
    assert carrying <= asking
    for asked in ASKED:
        if asked.exemplar:
            assert {family(selector.name) for selector in raw(asked)} & carrying, asked.panel


def test_provisioning_leads_from_an_exemplar_to_its_trace():
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["uid"], source["type"]) == ("prometheus", "prometheus")
    (destination,) = source["jsonData"]["exemplarTraceIdDestinations"]
    assert destination["name"] == EXEMPLAR_LABEL
    assert destination["url"].endswith("/traces/$${__value.raw}")
    scrape = yaml.safe_load((ROOT / "deploy" / "prometheus" / "scrape.yml").read_text())["scrape_configs"][0]
    assert source["jsonData"]["timeInterval"] == scrape["scrape_interval"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "agentos.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["allowUiUpdates"] is False


@each_board()
def test_grafanas_schema_knows_every_field(board):
    """Read into Grafana's own models and written again: a misspelt option would be lost on the way."""
    register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(board)))))
    # The schema leaves to data sources what an annotation or a variable of theirs looks like.
    theirs = {".annotations.list[].expr", ".annotations.list[].step", ".annotations.list[].textFormat"}
    theirs |= {".annotations.list[].titleFormat", ".templating.list[].definition"}
    assert set(lost(board, again)) - theirs == set()


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        gone = [f"{path}.{key}" for key in before if key not in after]
        return gone + [x for key in before if key in after for x in lost(before[key], after[key], f"{path}.{key}")]
    if isinstance(before, list) and isinstance(after, list):
        short = [path] if len(before) != len(after) else []
        return short + [x for a, b in zip(before, after, strict=False) for x in lost(a, b, f"{path}[]")]
    return [] if before == after else [f"{path}: {before!r} became {after!r}"]


def test_the_schema_check_sees_a_misspelt_option():
    board = json.loads(json.dumps(BOARDS["agentos-overview"]))
    lines = next(panel for panel in panels.panels(board) if panel["type"] == "timeseries")
    lines["options"]["legend"]["placment"] = "bottom"
    with pytest.raises(AssertionError, match="placment"):
        test_grafanas_schema_knows_every_field(board)


# --- Others' checks --------------------------------------------------------------------------------------------------


def test_every_exception_of_the_linter_has_a_reason():
    exceptions = yaml.safe_load((panels.DASHBOARDS / ".lint").read_text())
    assert set(exceptions) == {"exclusions"}
    assert set(exceptions["exclusions"]) == {"template-instance-rule", "target-instance-rule", "target-job-rule"}
    assert len(exceptions["exclusions"]["target-job-rule"]["entries"]) == 2, "not for every panel"
    for exception in exceptions["exclusions"].values():
        assert exception["reason"]


# --- The list for the demo -------------------------------------------------------------------------------------------


def test_panels_that_may_be_empty_exist_and_have_a_reason():
    known = {(query.board, query.panel) for query in ASKED}
    assert set(panels.EMPTY) <= known
    assert set(panels.EMPTY_QUERIES) <= {(query.board, query.panel, query.ref) for query in ASKED}
    assert all({*panels.EMPTY.values(), *panels.EMPTY_QUERIES.values()})
    assert len(panels.EMPTY) < len(known) / 10


@each_query()
def test_every_variable_is_replaced(asked):
    assert "$" not in asked.expr
