"""A Prometheus for the demo, where the machine has one: it scrapes the exporter and loads the shipped rules."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Final

from exporter.demo.children import Child, ChildFailedError

SCRAPE_SECONDS: Final = 2
_RULES: Final = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
_PATIENCE: Final = 30.0


def installed() -> str | None:
    """Path of the binary, None if there is none."""
    return shutil.which("prometheus")


def configuration(target: str) -> str:
    """The text of a prometheus.yml. JSON is YAML, and its quotes can hold any path."""
    return json.dumps(
        {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "5s"},
            "scrape_configs": [{"job_name": "agentos-exporter", "static_configs": [{"targets": [target]}]}],
            "rule_files": [str(path) for path in sorted(_RULES.glob("rules*.yml"))],
        },
        indent=2,
    )


async def start(binary: str, *, port: int, target: str, scratch: Path, keep: bool) -> Child:
    """Start Prometheus on the loopback interface, and wait until it answers.

    Args:
        binary: Path of the program.
        port: Port that it listens on.
        target: Address that it scrapes.
        scratch: Folder for its files.
        keep: Whether the folder stays after the end.

    Raises:
        ChildFailedError: It does not answer.

    """
    file = scratch / "prometheus.yml"
    file.write_text(configuration(target))
    command = (
        binary,
        f"--config.file={file}",
        f"--storage.tsdb.path={scratch / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    )
    log = scratch / "prometheus.log"
    child = await Child.start("Prometheus", command, log=log, scratch=None if keep else scratch)
    try:
        async with asyncio.timeout(_PATIENCE):
            await _answering(child, port)
    except TimeoutError:
        await child.stop()
        raise ChildFailedError(f"Prometheus did not answer within {_PATIENCE:.0f} seconds") from None
    except BaseException:
        await child.stop()
        raise
    return child


async def _answering(child: Child, port: int) -> None:
    ended = asyncio.create_task(child.ended())
    try:
        while not await _ready(port):
            if ended.done():
                raise child.failure()
            await asyncio.sleep(0.1)
    finally:
        ended.cancel()


async def _ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(b"GET /-/ready HTTP/1.0\r\n\r\n")
        await writer.drain()
        return b" 200 " in await reader.readline()
    except OSError:
        return False
    finally:
        writer.close()
