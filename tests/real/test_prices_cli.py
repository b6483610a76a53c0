"""Commands about prices as processes of their own."""

import subprocess
import sys


def test_only_who_asks_for_prices_waits_for_them() -> None:
    script = "import sys; from exporter.cli import prices; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
