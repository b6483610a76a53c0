"""The plain manifests: they fit their schemas and one another; what makes them: tests/tools/test_kubernetes.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from deploy.mixin import manifests as mixin_manifests
from exporter.cli.main import main
from tests.harness import manifests
from tests.harness.manifests import OPERATOR, PLAIN, objects, only, written


def everything() -> list[manifests.Object]:
    return [manifest for text in written().values() for manifest in objects(text)]


def test_a_file_without_groups_is_no_file_of_rules() -> None:
    with pytest.raises(ValueError, match="groups:"):
        mixin_manifests.files({"rules-alerts.yml": "rules: []\n"})


def test_the_kustomization_names_the_ports_that_are_open() -> None:
    text = (PLAIN / "kustomization.yaml").read_text()
    _dns, rule = only("NetworkPolicy", everything())["spec"]["egress"]
    ports = [port["port"] for port in rule["ports"]]
    assert f"TCP ports {ports[0]} and {ports[1]} only" in text
    assert ports == [443, 7777]
    url = urlsplit(yaml.safe_load(only("ConfigMap", everything())["data"]["agentos-exporter.yml"])["agentos"][0]["url"])
    assert url.port in ports


def test_nothing_of_helm_is_left() -> None:
    text = "\n".join(written().values())
    assert "helm" not in text.lower()
    assert "checksum" not in text


@pytest.mark.parametrize("version", manifests.VERSIONS)
def test_every_object_fits_its_schema(version: str, tmp_path: Path) -> None:
    assert {one["kind"] for one in everything()} >= {*OPERATOR, "StatefulSet", "NetworkPolicy", "Service"}
    assert [problem for one in everything() for problem in manifests.problems(one, version)] == []
    manifests.kubeconform("---\n".join(written().values()), version, tmp_path)


@pytest.mark.parametrize("folder", [PLAIN, PLAIN / "prometheus-operator"], ids=["core", "operator"])
def test_the_kustomization_lists_its_folder(folder: Path) -> None:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    here = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert sorted(kustomization["resources"]) == sorted(here)
    namespaces = {
        manifest["metadata"]["namespace"] for name in here for manifest in objects((folder / name).read_text())
    }
    assert namespaces == {kustomization["namespace"]}
    for image in kustomization.get("images", ()):
        (container,) = only("StatefulSet", everything())["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"{image['name']}:{image['newTag']}"


def test_the_exporter_understands_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (name, text), *others = only("ConfigMap", everything())["data"].items()
    assert others == []
    token = tmp_path / "token"
    token.write_text("not-a-real-token")
    (tmp_path / name).write_text(text.replace("/run/secrets/agentos-exporter/prod-token", str(token)))
    assert main(["check-config", "--config.file", str(tmp_path / name)]) == 0, capsys.readouterr().err


def test_the_documented_secret_is_the_mounted_one() -> None:
    spec: Any = only("StatefulSet", everything())["spec"]["template"]["spec"]
    (source,) = next(v["projected"]["sources"] for v in spec["volumes"] if v["name"] == "secrets")
    command = re.search(r"create secret generic (\S+) --from-file=(\S+)=", (PLAIN / "kustomization.yaml").read_text())
    assert command is not None
    assert source["secret"]["name"] == command[1]
    assert [item["key"] for item in source["secret"]["items"]] == [command[2]]
