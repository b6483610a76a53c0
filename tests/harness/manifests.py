"""Kubernetes objects in tests: rendered from the chart, checked with the schemas of Kubernetes and of the operator."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.harness.tools import tool

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/agentos-exporter"
FULL = CHART / "ci/full-values.yaml"
PLAIN = ROOT / "deploy/kubernetes"
OPERATOR = ("ServiceMonitor", "PrometheusRule")
"""Kinds of objects that are the Prometheus operator's."""
SCHEMAS = ROOT / "tests/schemas"
VERSIONS = ("1.27", ".".join(kubernetes_validate.latest_version().split(".")[:2]))
"""The oldest Kubernetes that the chart takes, and the newest that there are schemas of."""

Object = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm; its outcome is the caller's to judge."""
    return subprocess.run([tool("helm"), *arguments], capture_output=True, text=True, check=False)


def template(
    *files: Path,
    chart: Path = CHART,
    release: str = "agentos-exporter",
    namespace: str = "monitoring",
    sets: Mapping[str, object] | None = None,
    kubernetes: str = VERSIONS[-1],
) -> str:
    """What `helm template` prints for values from files and, on top, from `sets` (key → JSON)."""
    done = helm(
        *("template", release, str(chart), "--namespace", namespace, "--kube-version", kubernetes),
        *(f"--values={file}" for file in files),
        *(f"--set-json={key}={json.dumps(value)}" for key, value in (sets or {}).items()),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def written() -> dict[str, str]:
    """The plain manifests, by path below `PLAIN`."""
    found = [path for path in PLAIN.rglob("*.yaml") if path.name != "kustomization.yaml"]
    return {str(path.relative_to(PLAIN)): path.read_text() for path in found}


def objects(text: str) -> list[Object]:
    """The objects of a YAML stream."""
    return [found for found in yaml.safe_load_all(text) if found is not None]


def of_kind(kind: str, found: Iterable[Object]) -> list[Object]:
    """Those of one kind."""
    return [one for one in found if one["kind"] == kind]


def only(kind: str, found: Iterable[Object]) -> Object:
    """The one of this kind."""
    (one,) = of_kind(kind, found)
    return one


def problems(one: Object, version: str = VERSIONS[-1]) -> list[str]:
    """What the schema of its kind finds wrong with an object; a key that the schema does not know is wrong."""
    where = f"{one['kind']} {one['metadata']['name']}"
    if one["apiVersion"].startswith("monitoring.coreos.com/"):
        errors = jsonschema.Draft202012Validator(operator_schema(one["kind"])).iter_errors(one)
        return [f"{where}: {error.json_path}: {error.message}" for error in errors]
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except jsonschema.ValidationError as error:
        return [f"{where}: {error.json_path}: {error.message}"]
    return []


@functools.cache
def operator_schema(kind: str) -> Any:
    """The schema of a custom resource of the Prometheus operator, closed: what it does not name is not allowed."""
    crd = json.loads((SCHEMAS / f"monitoring.coreos.com_{kind.lower()}s.json").read_text())
    (version,) = (each for each in crd["spec"]["versions"] if each["storage"])
    assert (crd["spec"]["names"]["kind"], version["name"]) == (kind, "v1")
    schema = _closed(version["schema"]["openAPIV3Schema"])
    # The API server checks these two itself.
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def kubeconform(text: str, version: str, folder: Path) -> None:
    """Check a YAML stream with kubeconform, on the schemas that are here: nothing is skipped and nothing fetched."""
    for manifest in objects(text):
        group, _, api = manifest["apiVersion"].rpartition("/")
        if group == "monitoring.coreos.com":
            schema = operator_schema(manifest["kind"])
        else:
            schema = _bundled(f"{manifest['kind']}-{group.partition('.')[0]}-{api}".lower().replace("--", "-"), version)
        (folder / f"{manifest['kind'].lower()}.json").write_text(json.dumps(schema))
    done = subprocess.run(
        [
            *(tool("kubeconform"), "-strict", "-output", "json", "-summary"),
            *("-schema-location", f"{folder}/{{{{.ResourceKind}}}}.json", "-"),
        ],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)["summary"]
    assert summary == {"valid": len(objects(text)), "invalid": 0, "errors": 0, "skipped": 0}


@functools.cache
def _bundled(name: str, version: str) -> Any:
    """A schema of kubernetes-validate together with the definitions that it refers to, in one document."""
    place = Path(kubernetes_validate.__file__).parent / f"kubernetes-json-schema/v{version}.0-local-strict"
    text = (place / f"{name}.json").read_text()
    definitions = _definitions(place)
    needed: dict[str, Any] = {}
    rest = {*_REFERENCE.findall(text)}
    while rest:
        each = rest.pop()
        needed[each] = definitions[each]
        rest |= {*_REFERENCE.findall(json.dumps(definitions[each]))} - needed.keys()
    whole = json.loads(text) | {"$defs": needed}
    whole.pop("$id", None)
    return json.loads(json.dumps(whole).replace("/api/_definitions.json#", "#"))


_REFERENCE = re.compile(r'"\$ref": "[^"#]*#/\$defs/([\w.-]+)"')


@functools.cache
def _definitions(place: Path) -> Any:
    return json.loads((place / "_definitions.json").read_text())["$defs"]
