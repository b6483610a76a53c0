"""Lists of instances: what is read of them, and what their targets become."""

import json
from pathlib import Path

import pytest

from exporter import config
from exporter.config.discovery import instances
from exporter.config.settings import AgentOS, Discovery
from exporter.core.errors import BadAnswer, ConfigError
from exporter.sources.discovery import Group, paths, read

LIST = Discovery("file", ("/x.yml",), 300.0, AgentOS("", "", enrich_runs=True))


def found(*groups: tuple[list[str], dict[str, str]], listed: Discovery = LIST, **environ: str):
    return instances([Group(targets, labels) for targets, labels in groups], listed, environ)


def test_targets_become_instances():
    some, problems = found(
        (["a:7777", "b:7777"], {}),
        (["c.example.com"], {"agentos": "prod", "__scheme__": "https", "__path__": "/os/"}),
        (["https://d.example.com/x"], {"agentos": "staging", "team": "ignored"}),
    )
    assert problems == []
    assert [(one.name, one.url) for one in some] == [
        ("a:7777", "http://a:7777"),
        ("b:7777", "http://b:7777"),
        ("prod", "https://c.example.com/os"),
        ("staging", "https://d.example.com/x"),
    ]
    assert all(one.enrich_runs and one.discovered for one in some)


def test_one_bad_target_costs_itself_alone():
    some, problems = found(
        (["ftp://a", "good:1", "user:t0psecret@b", "x y", ""], {}),
        (["c:1", "d:1"], {"agentos": "same"}),
        (["e:1"], {"agentos": "no name"}),
    )
    assert [one.name for one in some] == ["good:1", "same"]
    assert len(problems) == 6
    assert any("'d:1': 'same' is the name of another one" in problem for problem in problems)


def test_the_name_may_stand_in_another_label():
    listed = Discovery("http", ("http://x",), 60.0, AgentOS("", ""), "instance")
    some, _ = found((["a:1"], {"instance": "one", "agentos": "two"}), listed=listed)
    assert [one.name for one in some] == ["one"]


def test_proxies_of_the_environment_hold():
    (one, other), _ = found((["a:1", "b:1"], {}), http_proxy="http://proxy:3128", no_proxy="b")
    assert one.proxy.reveal() == "http://proxy:3128"
    assert other.proxy is None


GROUPS = [{"targets": ["a:1"], "labels": {"agentos": "a"}}, {"targets": ["b:1"]}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", json.dumps(GROUPS)),
        ("t.yml", json.dumps(GROUPS)),
        ("t.yaml", "- targets: ['a:1']\n  labels:\n    agentos: a\n- targets:\n  - b:1\n"),
    ],
)
def test_formats(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read(tmp_path / name) == ([Group(("a:1",), {"agentos": "a"}), Group(("b:1",))], [])


@pytest.mark.parametrize("name", ["t.json", "t.yml"])
def test_a_target_that_is_no_text_costs_itself_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps([{"targets": ["a:1", None, "c:1"], "labels": None}, *GROUPS]))
    groups, problems = read(tmp_path / name)
    assert [group.targets for group in groups] == [("a:1", "c:1"), ("a:1",), ("b:1",)]
    assert problems == [f"{tmp_path / name}[0].targets: a target must be a text"]


@pytest.mark.parametrize("name", ["t.json", "t.yml"])
@pytest.mark.parametrize("group", [{"targets": "a:1"}, 7, {"labels": {}}])
def test_a_bad_group_may_have_named_many(tmp_path: Path, name: str, group: object) -> None:
    (tmp_path / name).write_text(json.dumps([*GROUPS, group]))
    with pytest.raises(BadAnswer, match=r"\[2\]: must be a group"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.json", "["),
        ("t.json", "{}"),
        ("t.json", "[" * 10_000),
        ("t.yml", "a: b"),
        ("t.yml", "a: &x 1\nb: *x"),
        ("t.yml", "\0"),
        ("t.yml", ""),  # as one that is being written; [] is an empty list
        ("t.json", ""),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadAnswer, match=name):
        read(tmp_path / name)


def test_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "t.yml").write_text("[]")
    assert read(tmp_path / "t.yml") == ([], [])


def test_patterns(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yml", "c.json"):
        (tmp_path / name).touch()
    assert [path.name for path in paths([f"{tmp_path}/*.yml", f"{tmp_path}/a.*"])] == ["a.yml", "b.yml"]
    assert paths([f"{tmp_path}/gone.yml"]) == [tmp_path / "gone.yml"]
    with pytest.raises(BadAnswer, match="No such file"):
        paths([f"{tmp_path}/gone/*.yml"])


# Configuration


def load(tmp_path: Path, **keys: object) -> config.Config:
    file = tmp_path / "exporter.yml"
    file.write_text(json.dumps(keys))
    return config.load({"config_file": str(file)}, {})


def test_configuration(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        agentos_file_sd=[{"files": ["targets/*.yml", "/x/t.json"], "db_ids": ["main"]}],
        agentos_http_sd=[{"url": "https://x.example.com/t?a=b", "refresh_interval": "30s", "name_label": "name"}],
        budgets=[{"name": "b", "agentos": "whoever", "period": "day", "limit_usd": 1}],
    )
    files, endpoint = loaded.discovery
    assert loaded.agentos == ()
    assert (files.where, files.refresh) == ((f"{tmp_path}/targets/*.yml", "/x/t.json"), 300.0)
    assert files.template.db_ids == ("main",)
    assert (endpoint.where, endpoint.refresh, endpoint.name_label) == (("https://x.example.com/t?a=b",), 30.0, "name")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"agentos_file_sd": {}}, "agentos_file_sd: must be a list such as [{files: [targets/*.yml]}]"),
        ({"agentos_file_sd": [{}]}, "agentos_file_sd[0].files: is missing"),
        ({"agentos_file_sd": [{"files": ["t.txt"]}]}, "agentos_file_sd[0].files[0]: must end in .json, .yml or .yaml"),
        ({"agentos_file_sd": [{"files": ["*/t.yml"]}]}, "agentos_file_sd[0].files[0]: may have * in its last part"),
        ({"agentos_http_sd": [{"url": "x"}]}, "agentos_http_sd[0].url: a URL starts with http"),
        ({"agentos_http_sd": [{"url": "http://u:t0psecret@x"}]}, "agentos_http_sd[0].url: a URL carries no user"),
        ({"agentos_http_sd": [{}]}, "agentos_http_sd[0].url: is missing"),
        ({"agentos_http_sd": [{"url": "http://x", "name_label": "a-b"}]}, "is not the name of a label"),
        ({"agentos_http_sd": [{"url": "http://x", "refresh_interval": "0s"}]}, "must be between 1s and 1d"),
        ({"agentos_http_sd": [{"url": "http://x", "name": "a"}]}, "unknown key"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path: Path, keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, **keys)
    assert any(message in problem for problem in refused.value.problems), refused.value.problems
    assert not any("t0psecret" in problem for problem in refused.value.problems)
