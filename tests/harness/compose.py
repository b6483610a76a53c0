"""The compose stack as tests see it: parsed with its anchors, its mounts resolved to files of the repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/compose"
FILE = FOLDER / "compose.yml"


@dataclass(frozen=True)
class Mount:
    """What one service sees at one path: a file or folder of the repository, or a named volume."""

    target: str
    source: Path | None
    volume: str | None
    read_only: bool

    def find(self, path: str) -> Path | None:
        """The file of the repository that stands at a path of the container, None where it is none of this mount."""
        if self.source is None:
            return None
        if path == self.target:
            return self.source
        prefix = f"{self.target}/"
        return self.source / path.removeprefix(prefix) if path.startswith(prefix) else None


def load(file: Path = FILE) -> Any:
    """The file as it is written, with its anchors in place."""
    return yaml.safe_load(file.read_text())


def services() -> dict[str, Any]:
    """The services by name."""
    return load()["services"]


def mounts(service: Any) -> list[Mount]:
    """The mounts of a service, in the short form that the stack uses."""
    found = []
    for text in service.get("volumes", ()):
        source, target, *mode = text.split(":")
        here = (FOLDER / source).resolve() if source.startswith(".") else None
        found.append(Mount(target, here, None if here else source, mode == ["ro"]))
    return found


def mounted(service: Any, path: str) -> Path:
    """The file of the repository that a service sees at a path."""
    found = [file for mount in mounts(service) if (file := mount.find(path)) is not None]
    assert len(found) == 1, f"{path}: {found}"
    return found[0]


def port(service: Any) -> int:
    """The port that a service listens on, in its container."""
    (published,) = service["ports"]
    return int(published.rpartition(":")[2])


def flag(service: Any, name: str) -> str:
    """The value of a flag of its command: `--name=value`, or two words."""
    words = service["command"]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    raise AssertionError(f"{name} is not among {words}")
