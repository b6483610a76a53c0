"""docs/deployment.md by the letter, as helm renders it: the values that it shows, the pod that restores."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from exporter.cli.main import main
from exporter.config import DEFAULT_STATE
from tests.harness import manifests
from tests.harness.manifests import CHART, ROOT, objects, of_kind, only, template

TEXT = (ROOT / "docs/deployment.md").read_text()


def test_the_values_that_it_shows_render(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = re.findall(r"```yaml\n# values.yml\n(.*?)```", TEXT, re.DOTALL)
    values = tmp_path / "values.yml"
    values.write_text(shown)
    found = objects(template(values))
    boards = len(list((CHART / "files/dashboards").glob("*.json")))
    assert len(of_kind("ConfigMap", found)) == 1 + boards
    for kind in ("ServiceMonitor", "PrometheusRule"):
        assert only(kind, found)["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    (config,) = (one["data"] for one in of_kind("ConfigMap", found) if "agentos-exporter.yml" in one["data"])
    (tmp_path / "prod-token").write_text("not-a-real-token")
    file = tmp_path / "agentos-exporter.yml"
    file.write_text(config["agentos-exporter.yml"].replace("/run/secrets/agentos-exporter", str(tmp_path)))
    assert main(["check-config", "--config.file", str(file)]) == 0, capsys.readouterr().err
    # The Secret that it makes is the one that these values mount.
    secret, key = re.findall(r"create secret generic (\S+) --from-file=(\w+)=", TEXT)[0]
    (given,) = yaml.safe_load(shown)["secrets"]
    assert (given["secret"], given["key"]) == (secret, key)


def test_the_values_for_tls_bring_all_that_the_web_config_names(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n# values-tls.yml\n(.*?)```", TEXT, re.DOTALL)
    values = tmp_path / "values.yml"
    values.write_text(shown)
    found = objects(template(values))
    assert [problem for one in found for problem in manifests.problems(one)] == []
    spec = only("StatefulSet", found)["spec"]["template"]["spec"]
    (flag,) = (word for word in spec["containers"][0]["args"] if word.startswith("--web.config.file="))
    (volume,) = (one for one in spec["volumes"] if one["name"] == "secrets")
    names = {item["path"] for source in volume["projected"]["sources"] for item in source["secret"]["items"]}
    (web,) = re.findall(r"```yaml\n# web.yml\n(.*?)```", TEXT, re.DOTALL)
    named = {text for key, text in yaml.safe_load(web)["tls_server_config"].items() if key.endswith("_file")}
    assert names == named | {flag.rpartition("/")[2]}


def test_the_pod_that_restores_gets_at_the_volume_as_the_exporter_does() -> None:
    (shown,) = re.findall(r"```yaml\n +# restore.yml\n(.*?) +```", TEXT, re.DOTALL)
    (pod,) = objects(shown)
    assert manifests.problems(pod) == []
    stateful = only("StatefulSet", objects(template()))
    spec, ours = stateful["spec"]["template"]["spec"], pod["spec"]
    (claim,) = stateful["spec"]["volumeClaimTemplates"]
    name = stateful["metadata"]["name"]
    (volume,) = ours["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == f"{claim['metadata']['name']}-{name}-0"
    (theirs,), (one,) = spec["containers"], ours["containers"]
    assert one["securityContext"] == theirs["securityContext"]
    assert ours["securityContext"].items() <= spec["securityContext"].items()
    (mount,) = one["volumeMounts"]
    assert mount["mountPath"] == str(DEFAULT_STATE.parent)
    assert mount["mountPath"] in [each["mountPath"] for each in theirs["volumeMounts"]]
    commands = re.findall(r"^  \$ kubectl (.*)$", TEXT, re.MULTILINE)
    assert {word for line in commands for word in re.findall(rf"{name}-restore|{name}-0", line)} == {
        pod["metadata"]["name"],
        f"{name}-0",
    }
    scaled = [line[-1] for line in commands if "--replicas=" in line]
    assert scaled == ["0", "1"]
