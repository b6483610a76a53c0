"""A forked program behaves as one that was started, and need not import again."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import forks, truth

PROGRAM = """
import atexit, json, os, random, sys
here = {"name": __name__, "arguments": sys.argv[1:], "environment": dict(os.environ), "folder": os.getcwd()}
print(json.dumps(here | {"imported": list(sys.modules), "random": random.random()}))
atexit.register(print, "at last")
raise SystemExit(int(sys.argv[1]))
"""
SLEEPER = "import time; print('up', flush=True); time.sleep(600)"


def run(program: Path, *arguments: str, output: Path) -> forks.Running:
    with output.open("ab") as file:
        return forks.start(str(program), *arguments, output=file, environment={"GREETING": "hello"})


def test_a_forked_program_is_as_a_started_one(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    draws = []
    for name in ("once", "twice"):
        output = tmp_path / name
        process = run(program, "7", "--flag", output=output)
        assert process.wait(60) == process.returncode == process.poll() == 7
        said, last = output.read_text().splitlines()
        here = json.loads(said)
        draws.append(here.pop("random"))
        assert set(forks.PRELOAD) <= set(here.pop("imported"))
        assert here == {
            "name": "__main__",
            "arguments": ["7", "--flag"],
            "environment": {"GREETING": "hello"},
            "folder": str(Path(__file__).parents[2]),
        }
        assert last == "at last"
    assert len(set(draws)) == 2  # or two AgentOS would give their spans the same ids


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_signals_end_it(tmp_path: Path, how: signal.Signals) -> None:
    program, output = tmp_path / "sleeper.py", tmp_path / "output"
    program.write_text(SLEEPER)
    process = run(program, output=output)
    try:
        truth.wait_until(lambda: "up" in output.read_text())
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(how)
        assert process.wait(60) == process.returncode == -how
    finally:
        process.kill()  # of no effect once it has ended


@pytest.mark.parametrize("other", [True, False])
def test_what_is_not_forked_is_started(tmp_path: Path, other: bool) -> None:
    program, output, python = tmp_path / "program.py", tmp_path / "output", Path(sys.executable)
    program.write_text("import sys; print('agno' in sys.modules, sys.orig_argv[0])")
    if other:
        python = tmp_path / "python"
        python.symlink_to(sys.executable)
    with output.open("ab") as file:
        process = forks.start(str(program), output=file, environment={}, python=str(python), fork=other)
    assert process.wait(60) == 0
    assert output.read_text() == f"False {python}\n"


def test_what_is_left_is_killed_in_the_end(tmp_path: Path) -> None:
    program, output = tmp_path / "sleeper.py", tmp_path / "output"
    program.write_text(SLEEPER)
    script = f"""
from pathlib import Path
from tests.harness import forks, truth
with forks.serving():
    with forks.serving():
        pass
    process = forks.start({str(program)!r}, output=Path({str(output)!r}).open("wb"), environment={{}})
    assert type(process).__module__ == "tests.harness.forks"  # forked, although serving ended once within
    while not Path({str(output)!r}).read_bytes():
        assert process.poll() is None
assert process.wait(60) == -9
"""
    root = Path(__file__).parents[2]
    subprocess.run((sys.executable, "-c", script), cwd=root, timeout=120, check=True)
