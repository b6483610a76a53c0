"""What the benchmarks share: a child process with its own CPU time and peak memory, and quantiles."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a child process says of itself: its own figures, CPU seconds and peak memory in MiB."""

    figures: dict[str, Any]
    cpu: float
    peak: float


def child(module: str, *arguments: object) -> Cost:
    """Run `python -m module arguments` in a process of its own; it ends with `report`."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    return Cost(said["figures"], said["cpu"], said["peak"])


def as_daemon() -> None:
    """Set this process up as the daemon does its own."""
    from exporter.service.daemon import SWITCH_INTERVAL, settle

    sys.setswitchinterval(SWITCH_INTERVAL)
    settle()


def report(**figures: object) -> None:
    """Print, as the last line of a child, its figures, CPU time and peak memory."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"figures": figures, "cpu": usage.ru_utime + usage.ru_stime, "peak": _peak()}))


def _peak() -> float:
    """Peak resident memory in MiB. Linux keeps the parent's peak in ru_maxrss over an exec, so /proc is asked first."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**10


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def cpu(pid: int) -> float:
    """CPU seconds of another process so far; on Linux."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
