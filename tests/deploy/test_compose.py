"""The compose stack on paper: images, users, mounts, ports and names. tests/tools/test_stack.py runs its commands."""

from __future__ import annotations

import json
import re
import socket
from pathlib import PurePosixPath
from typing import Any

import jsonschema
import pytest
import yaml

from exporter import __version__
from exporter.cli.main import main
from exporter.config import DEFAULT_PORT, DEFAULT_STATE
from tests.harness import compose
from tests.harness.compose import FILE, FOLDER, ROOT, flag, mounted, mounts, port, services

ADMIN = FOLDER / "grafana-admin.yml"
TLS = FOLDER / "tls.yml"
NAMES = list(services())
EXPORTER = services()["agentos-exporter"]
PROMETHEUS = services()["prometheus"]
ALERTMANAGER = services()["alertmanager"]
GRAFANA = services()["grafana"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def service(name: str) -> Any:
    return services()[name]


@pytest.mark.parametrize("file", [FILE, ADMIN, TLS], ids=lambda file: file.stem)
def test_it_fits_the_specification(file: Any) -> None:
    schema = json.loads((ROOT / "tests/schemas/compose-spec.json").read_text())
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(compose.load(file)))
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_the_stack_is_whole() -> None:
    assert sorted(NAMES) == ["agentos", "agentos-exporter", "alertmanager", "grafana", "prometheus"]


@pytest.mark.parametrize("name", NAMES)
def test_images_are_pinned(name: str) -> None:
    _, _, tag = service(name)["image"].partition(":")
    assert re.fullmatch(r"v?[0-9]+\.[0-9]+\.[0-9]+", tag), tag


def test_one_image_is_built_and_both_of_ours_run_it() -> None:
    assert EXPORTER["image"] == service("agentos")["image"] == f"agentos-exporter:{__version__}"
    built = [name for name in NAMES if "build" in service(name)]
    assert built == ["agentos-exporter"], "two that build the same tag at once are in each other's way"
    assert (FOLDER / EXPORTER["build"]["context"]).resolve() == ROOT
    assert set(EXPORTER["build"]["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert service("agentos")["pull_policy"] == "never"


@pytest.mark.parametrize("name", NAMES)
def test_every_service_is_hardened(name: str) -> None:
    one = service(name)
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    user = one["user"].partition(":")[0]
    assert user.isdigit()
    assert int(user) != 0
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "cap_add"} & one.keys()
    for mount in mounts(one):
        assert mount.read_only is (mount.source is not None), mount


def test_the_users_of_our_image_are_its_own() -> None:
    (user,) = re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)
    assert EXPORTER["user"] == service("agentos")["user"] == user


def test_ports_are_for_this_machine_only_and_no_two_are_alike() -> None:
    published = [text for name in NAMES for text in service(name)["ports"]]
    assert len({text.split(":")[1] for text in published}) == len(NAMES)
    assert {text.split(":")[0] for text in published} == {"127.0.0.1"}


def test_every_mount_has_its_source_and_every_volume_its_use() -> None:
    used = set()
    for name in NAMES:
        for mount in mounts(service(name)):
            if mount.source is None:
                used.add(mount.volume)
            else:
                assert mount.source.exists(), mount
                assert mount.source.is_relative_to(ROOT / "deploy")
    assert used == set(compose.load()["volumes"])


@pytest.mark.parametrize("name", NAMES)
def test_every_service_says_whether_it_is_well(name: str) -> None:
    check = service(name)["healthcheck"]
    assert check["test"][0] == "CMD", "no image needs a shell for it"
    assert f"127.0.0.1:{port(service(name))}" in " ".join(check["test"])


def test_dependencies_wait_for_health() -> None:
    for name in NAMES:
        for other, wait in service(name).get("depends_on", {}).items():
            assert wait == {"condition": "service_healthy"}
            assert "healthcheck" in service(other)


@pytest.mark.parametrize("name", ["agentos-exporter", "prometheus", "alertmanager"])
def test_what_reads_its_configuration_anew_has_the_folder(name: str) -> None:
    """A file that is mounted alone stays the one that it was, when an editor puts another in its place."""
    sources = [mount.source for mount in mounts(service(name)) if mount.source]
    assert sources
    assert all(source.is_dir() for source in sources)


# --- What is mounted is what is asked for -----------------------------------------------------------------------------


def test_the_exporter_reads_its_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = flag(EXPORTER, "--config.file")
    file = mounted(EXPORTER, config)
    assert main(["check-config", "--config.file", str(file)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert f"state               {DEFAULT_STATE}\n" in told.out
    prices = str(PurePosixPath(config).parent / yaml.safe_load(file.read_text())["prices"])
    assert main(["prices", "check", str(mounted(EXPORTER, prices))]) == 0
    assert port(EXPORTER) == DEFAULT_PORT


def test_what_is_written_lies_in_a_volume_that_the_image_made_for_its_user() -> None:
    folder = str(DEFAULT_STATE.parent)
    assert f"VOLUME {folder}\n" in DOCKERFILE
    assert f"COPY --from=builder --chown={EXPORTER['user']} {folder} {folder}\n" in DOCKERFILE
    volumes = {name: {m.target: m.volume for m in mounts(service(name)) if m.volume} for name in NAMES}
    assert volumes["agentos-exporter"] == {folder: "state"}
    assert volumes["agentos"] == {flag(service("agentos"), "--folder"): "agentos"} == {folder: "agentos"}
    assert volumes["prometheus"] == {flag(PROMETHEUS, "--storage.tsdb.path"): "prometheus"}
    assert volumes["alertmanager"] == {flag(ALERTMANAGER, "--storage.path"): "alertmanager"}
    assert volumes["grafana"] == {"/var/lib/grafana": "grafana"}


def test_prometheus_finds_its_files() -> None:
    config = mounted(PROMETHEUS, flag(PROMETHEUS, "--config.file"))
    parsed = yaml.safe_load(config.read_text())
    found = sorted(path.name for pattern in parsed["rule_files"] for path in config.parent.glob(pattern))
    assert found == ["rules-alerts.yml", "rules-recording.yml"]
    assert "--enable-feature=exemplar-storage" in PROMETHEUS["command"]


def test_alertmanager_finds_its_file() -> None:
    file = mounted(ALERTMANAGER, flag(ALERTMANAGER, "--config.file"))
    assert file == ROOT / "deploy/alertmanager/alertmanager.yml"
    assert file.exists()


def test_grafana_finds_boards_and_data_source() -> None:
    provisioning = mounted(GRAFANA, "/etc/grafana/provisioning/dashboards")
    (file,) = provisioning.glob("*.yml")
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    boards = mounted(GRAFANA, provider["options"]["path"])
    found = {json.loads(path.read_text())["uid"] for path in boards.glob("*.json")}
    assert len(found) == len(list(boards.glob("*.json"))) > 0

    source = mounted(GRAFANA, "/etc/grafana/provisioning/datasources/prometheus.yml")
    ours, shipped = (
        yaml.safe_load(source.read_text()),
        yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text()),
    )
    (one,) = ours["datasources"]
    assert one["url"] == f"http://prometheus:{port(PROMETHEUS)}"
    one["url"] = shipped["datasources"][0]["url"]
    one["jsonData"]["timeInterval"] = shipped["datasources"][0]["jsonData"]["timeInterval"]
    assert ours == shipped, "but for its address and the interval they are the same"


def test_grafana_knows_the_interval_of_scrapes() -> None:
    source = yaml.safe_load(mounted(GRAFANA, "/etc/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["jsonData"]["timeInterval"] == job("agentos-exporter")["scrape_interval"]


def job(name: str) -> Any:
    parsed = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (found,) = (each for each in parsed["scrape_configs"] if each["job_name"] == name)
    return found


def test_host_names_are_services() -> None:
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    exporter = yaml.safe_load((FOLDER / "exporter/agentos-exporter.yml").read_text())
    targets = [
        target
        for part in (*prometheus["scrape_configs"], *prometheus["alerting"]["alertmanagers"])
        for static in part["static_configs"]
        for target in static["targets"]
    ]
    targets += [agentos["url"].removeprefix("http://") for agentos in exporter["agentos"]]
    for target in targets:
        host, _, number = target.partition(":")
        one = PROMETHEUS if host == "localhost" else service(host)
        assert int(number) == port(one), target
    assert {target.partition(":")[0] for target in targets} == {
        *("localhost", "agentos", "agentos-exporter", "alertmanager")
    }


def test_a_new_series_is_seen_at_0_twice() -> None:
    hold = yaml.safe_load((FOLDER / "exporter/agentos-exporter.yml").read_text())["zero_hold"]
    interval = job("agentos-exporter")["scrape_interval"]
    assert 2 * int(interval.removesuffix("s")) <= int(hold.removesuffix("s"))


# --- Passwords --------------------------------------------------------------------------------------------------------


def test_grafana_has_no_password_to_guess() -> None:
    environment = GRAFANA["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert not [key for key in environment if "PASSWORD" in key]


def test_an_administrators_password_comes_from_a_file() -> None:
    added = compose.load(ADMIN)
    grafana = added["services"]["grafana"]
    (name,) = grafana["secrets"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == f"/run/secrets/{name}"
    assert set(added["secrets"]) == {name}
    assert set(added["secrets"][name]) == {"file"}
    assert grafana["environment"].items() >= {"GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "false"}.items()


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_over_tls_everything_else_is_as_before() -> None:
    added = compose.load(TLS)["services"]
    assert set(added) == {"agentos-exporter", "prometheus"}
    names = set(PROMETHEUS["command"]) ^ set(added["prometheus"]["command"])
    assert {name.partition("=")[0] for name in names} == {"--config.file"}
    for name, one in added.items():
        (mount,) = mounts(one)
        assert mount.read_only
        assert mount.source is not None
        assert mount.source.is_relative_to(FOLDER / "tls")
        assert mount.target not in {other.target for other in mounts(service(name))}, "it would be hidden"


def test_the_exporter_finds_its_web_config_and_is_asked_for_no_password() -> None:
    series = compose.load(TLS)["services"]["agentos-exporter"]
    ((variable, path),) = series["environment"].items()
    assert variable in (ROOT / "docs/cli.md").read_text()
    assert mounted(series, path) == FOLDER / "tls/exporter/web.yml"
    code = series["healthcheck"]["test"][-1]
    assert f"create_connection(('127.0.0.1', {port(EXPORTER)})" in code
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = code.replace(str(port(EXPORTER)), str(server.getsockname()[1]))
        exec(here, {})
    with pytest.raises(ConnectionRefusedError):
        exec(here, {})


def test_over_tls_prometheus_is_the_same_but_for_the_exporters_job() -> None:
    series = compose.load(TLS)["services"]["prometheus"]
    file = mounted(series, flag(series, "--config.file"))
    ours, whole = (
        yaml.safe_load(file.read_text()),
        yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text()),
    )
    assert ours["global"] == whole["global"]
    assert ours["alerting"] == whole["alerting"]
    (rules,), (theirs,) = ours["rule_files"], whole["rule_files"]
    assert mounted(PROMETHEUS, rules) == ROOT / "deploy/prometheus" / theirs
    (scrape,) = ours["scrape_configs"]
    assert (scrape.pop("scheme"), scrape.pop("tls_config")) == ("https", {"ca_file": "ca.crt"})
    assert scrape.pop("basic_auth") == {"username": "prometheus", "password_file": "password"}
    assert scrape == job("agentos-exporter")
