"""What is exposed, as promtool reads it."""

import shutil
import subprocess

import pytest

from exporter.metrics.render import Renderer
from tests.harness.families import full, some


@pytest.mark.prometheus
@pytest.mark.parametrize("families", [full(), some(), []], ids=["full", "some", "none"])
def test_promtool_finds_nothing(families):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    text = Renderer().render(families).text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
