"""The image on paper: its bases, its user, its port and its state."""

from __future__ import annotations

import re
from pathlib import Path

from exporter.config import DEFAULT_PORT, DEFAULT_STATE
from tests.harness.dockerfile import Stage, stages

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def final() -> Stage:
    return stages(TEXT)[-1]


def test_its_bases_are_pinned_and_alike() -> None:
    builder, last = stages(TEXT)
    assert builder.base == last.base, "a virtual environment runs on the Python that it was made with"
    assert re.fullmatch(r"python:3\.\d+(\.\d+)?-slim-\w+", last.base)


def test_it_runs_as_nobody_in_particular() -> None:
    user, _, group = final().last("USER").partition(":")
    assert int(user) == int(group) == 65532
    assert "RUN" not in [word for word, _ in final().steps], "the last stage only copies"


def test_its_port_and_state_are_the_exporters() -> None:
    assert int(final().last("EXPOSE")) == DEFAULT_PORT
    assert final().last("VOLUME") == final().last("WORKDIR") == str(DEFAULT_STATE.parent)
    assert f"127.0.0.1:{DEFAULT_PORT}/-/healthy" in " ".join(final().health())
    assert final().last("STOPSIGNAL") == "SIGTERM"
    assert final().argv("ENTRYPOINT") == ["agentos-exporter"]
    assert final().argv("CMD") == ["run", "--web.listen-address", f":{DEFAULT_PORT}"]
