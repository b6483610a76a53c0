"""Commands in tests: no setting from outside, and logging as it was after one that ran in the process of a test."""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from exporter.cli import main as cli
from exporter.core import logs

VERSION = re.compile(
    r"agentos_exporter, version (\S+) \(branch: (\S*), revision: (\S*)\)\n"
    r"  build user:       (.*)\n"
    r"  build date:       (.*)\n"
    r"  python version:   3\.\d+\.\S+\n"
    r"  platform:         \S+\n"
)
"""What `version` prints."""


def without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all settings of the exporter out of the environment."""
    for name in [name for name in os.environ if name.startswith("AGENTOS_EXPORTER_")]:
        monkeypatch.delenv(name)


@contextmanager
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting from outside; logging as it was."""
    without_settings(monkeypatch)
    monkeypatch.delenv("COLUMNS", raising=False)
    with own_logging(monkeypatch):
        yield


@contextmanager
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave logging as it was, and no secret behind."""
    monkeypatch.setattr(logs, "_secrets", {})
    monkeypatch.setattr(logs, "_needles", ())
    root = logging.getLogger()
    level = root.level
    names = (*logs._AGNO, *logs._UVICORN, *logs._NOISY)
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for handler in [handler for handler in root.handlers if isinstance(handler, logs._Handler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def fields(line: str) -> dict[str, str]:
    """A logfmt line as its reader takes it apart."""
    pairs = re.findall(r'([\w.-]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |$)', line)
    assert " ".join(f"{key}={value}" for key, value in pairs) == line
    return {key: value[1:-1] if value.startswith('"') else value for key, value in pairs}


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


def traces(capsys: pytest.CaptureFixture[str], *arguments: object, url: str = "") -> Said:
    """Run `agentos-exporter traces` in this process; '' is no --url."""
    code = cli.main(["traces", *map(str, arguments), *(["--url", url] if url else [])])
    return Said(code, *capsys.readouterr())


def listed(said: Said) -> list[dict[str, Any]]:
    assert said.code == 0, said.err
    return said.json["traces"]
