"""One target of `push`: when a snapshot is sent to it, how, and with what result.

Every value is cumulative, so there is no queue: each attempt sends the newest snapshot, which has everything that the
target missed.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import random
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Final

import httpx
import structlog

from exporter import __version__
from exporter.config.secrets import like_secret
from exporter.config.settings import Protocol
from exporter.core.document import RefusedError, shown
from exporter.core.errors import ConfigError
from exporter.core.logs import register_secret
from exporter.core.model import MICROSECONDS
from exporter.metrics.catalog import PUSH_OUTCOMES
from exporter.metrics.render import Rendered
from exporter.service.connect import register_proxy
from exporter.sources.api.http import system_authorities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.bookkeeping.shared import Shared
    from exporter.config import Push
    from exporter.metrics.render import Snapshot
    from exporter.service.publisher import Publisher

log = structlog.get_logger(__name__)

PAUSE_LIMIT: Final = 300.0
"""Longest pause that a target may ask for, in seconds."""
_PUSHES: Final = "agentos_exporter_push_total"
_LAG: Final = "agentos_exporter_push_lag_seconds"
_ANSWER_BYTES: Final = 64 * 1024
_REASON_LENGTH: Final = 200
_NOTHING: Final = Rendered(b"", b"", b"", b"")
"""Placeholder for the bytes of a snapshot of which only the list of series is kept."""
_TAKEN: Final = ("ok", "partial")
_RETRIED: Final = ("unreachable", "timeout", "throttled", "server_error")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a push.

    Attributes:
        outcome: One of `PUSH_OUTCOMES`.
        reason: For the log.
        status: Of the answer, if it was no success.
        pause: How many seconds the target asks to be left alone.

    """

    outcome: str
    reason: str = ""
    status: int | None = None
    pause: float = 0.0


class Target:
    """Sends the newest snapshot at each interval, and sooner where that failed and may succeed."""

    def __init__(self, push: Push, labels: Mapping[str, str], publisher: Publisher, shared: Shared) -> None:
        """Push to one target.

        Args:
            push: Its configuration.
            labels: Labels of the exporter, which the configuration may override.
            publisher: Has the snapshots.
            shared: What all instances share.

        Raises:
            ConfigError: The target cannot be used as configured.

        """
        self.name = push.name
        self._push = push
        self._labels = {**labels, **dict(push.labels)}
        self._publisher = publisher
        self._totals, self._clock = shared.totals, shared.clock
        self._client = _client(push)
        self._codec = _codec(push.protocol)
        self._taken: Snapshot | None = None
        self._begun = False
        self._turn_at = self._again_at = shared.clock.monotonic()
        self._failures = 0
        self._logged: set[tuple[str, int | None]] = set()
        for outcome in PUSH_OUTCOMES:
            self._totals.add(_PUSHES, (self.name, outcome), 0)

    async def work(self) -> None:
        """Send the newest snapshot if its time has come. Never raises."""
        now = self._clock.monotonic()
        if now < self._again_at:
            return
        if now >= self._turn_at:
            self._turn_at = now - (now - self._turn_at) % self._push.interval + self._push.interval
        await self.send()

    async def send(self) -> None:
        """Send the newest snapshot, unless the target has it. Never raises."""
        snapshot = self._publisher.snapshot
        if snapshot is None or (self._taken is not None and self._taken.version == snapshot.version):
            return
        self._begun = True
        verdict = await self._send(snapshot)
        self._totals.add(_PUSHES, (self.name, verdict.outcome))
        if verdict.outcome in _TAKEN:
            self._taken = replace(snapshot, rendered=_NOTHING)
            # A 0 that was sent is seen, as one that was scraped.
            self._publisher.scraped(snapshot.version)
        self._failures = self._failures + 1 if verdict.outcome in _RETRIED else 0
        self._again_at = self._turn_at
        if self._failures:
            pause = min(self._push.interval, 2.0 ** min(self._failures - 1, 12))
            pause *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
            self._again_at = self._clock.monotonic() + max(pause, min(verdict.pause, PAUSE_LIMIT))
        self._log_once(verdict)
        self.refresh()

    async def finish(self) -> None:
        """Send the last snapshot, if any was sent before."""
        if self._begun:
            await self.send()

    def refresh(self) -> None:
        """Show how old the newest snapshot is that the target has."""
        lag = None if self._taken is None else int((self._clock.now() - self._taken.at) * MICROSECONDS)
        self._totals.gauge(_LAG, (self.name,), lag)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _send(self, snapshot: Snapshot) -> Verdict:
        try:
            headers = await asyncio.to_thread(self._headers)
            gone = [] if self._taken is None else await asyncio.to_thread(snapshot.gone_since, self._taken)
            bodies = self._codec.requests(snapshot, gone, self._labels)
            result = Verdict("ok")
            while (body := await asyncio.to_thread(next, bodies, None)) is not None:
                verdict = await self._post(body, headers)
                if verdict.outcome not in _TAKEN:
                    return verdict
                result = verdict if result.outcome == "ok" else result
        except RefusedError as error:
            return Verdict("unauthorized", str(error))
        except Exception:
            log.exception("push_bug", target=self.name)
            return Verdict("bug", "a bug of agentos-exporter, please report it")
        return result

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> Verdict:
        tls = self._push.tls
        extensions = {"sni_hostname": tls.server_name} if tls is not None and tls.server_name else {}
        answer = bytearray()
        try:
            async with (
                asyncio.timeout(self._push.timeout),
                self._client.stream(
                    "POST", self._push.url, content=body, headers=headers, extensions=extensions
                ) as response,
            ):
                async for chunk in response.aiter_bytes():
                    answer += chunk[: _ANSWER_BYTES - len(answer)]
        except (TimeoutError, httpx.TimeoutException):
            return Verdict("timeout", f"no answer within {self._push.timeout:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return Verdict("unreachable", str(error) or type(error).__name__)
        if response.is_success:
            return self._verdict_of(response, bytes(answer))
        text = shown(" ".join(answer.decode("utf-8", "replace").split()), _REASON_LENGTH)
        status, pause = response.status_code, self._asked(response.headers.get("retry-after"))
        return Verdict(_outcome(status), f"{status} {text}".strip(), status, pause)

    def _verdict_of(self, response: httpx.Response, answer: bytes) -> Verdict:
        """What a target answers that took the request, perhaps only in part."""
        if self._push.protocol is not Protocol.OTLP or "protobuf" not in response.headers.get("content-type", ""):
            return Verdict("ok")
        rejected, why = self._codec.rejected(answer)
        if not rejected:
            return Verdict("ok")
        return Verdict("partial", f"{rejected} points were not taken: {shown(why, _REASON_LENGTH)}")

    def _asked(self, header: str | None) -> float:
        """Seconds of a header Retry-After, which may name a moment; 0 for none."""
        if header is None:
            return 0.0
        if header.strip().isdecimal():
            return float(header)
        try:
            return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - self._clock.now())
        except (ValueError, OverflowError):
            return 0.0

    def _headers(self) -> dict[str, str]:
        """Headers of the next requests; files are read again. Raises RefusedError."""
        push = self._push
        headers = {"User-Agent": f"agentos-exporter/{__version__}", **self._codec.HEADERS}
        for name, value in push.headers:
            headers[name] = value.reveal()
        token, password = push.token.read(), push.password.read()
        for secret in (token, password):
            if secret is not None:
                register_secret(secret)
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        elif push.username is not None and password is not None:
            pair = base64.b64encode(f"{push.username}:{password}".encode()).decode()
            register_secret(pair)
            headers["Authorization"] = f"Basic {pair}"
        return headers

    def _log_once(self, verdict: Verdict) -> None:
        """Log each kind of failure once, and that it is over."""
        if verdict.outcome == "ok":
            if self._logged:
                log.info("push", target=self.name, outcome="ok")
            self._logged.clear()
            return
        kind = (verdict.outcome, verdict.status)
        if kind not in self._logged:
            self._logged.add(kind)
            log.warning("push", target=self.name, outcome=verdict.outcome, error=verdict.reason)


def _outcome(status: int) -> str:
    if status in {401, 403}:
        return "unauthorized"
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return "throttled"
    return "server_error" if status >= httpx.codes.INTERNAL_SERVER_ERROR else "refused"


def _codec(protocol: Protocol) -> ModuleType:
    """Import the module that makes bodies of snapshots: it needs an extra, and 10 MB."""
    if protocol is Protocol.OTLP:
        from exporter.service.push import otlp  # noqa: PLC0415

        return otlp
    from exporter.service.push import remote_write  # noqa: PLC0415

    return remote_write


def _client(push: Push) -> httpx.AsyncClient:
    """Raises ConfigError."""
    register_proxy(push.proxy)
    for _, value in push.headers:
        if like_secret(value.reveal()):
            register_secret(value.reveal())
    try:
        return httpx.AsyncClient(
            verify=push.tls.context() if push.tls is not None else system_authorities(),
            proxy=None if push.proxy is None else push.proxy.reveal(),
            trust_env=False,  # the proxy is chosen already
            timeout=None,  # noqa: S113 - each request has one outside
            follow_redirects=False,  # the token must not follow
            limits=httpx.Limits(max_connections=1, keepalive_expiry=3.0),
        )
    except OSError as error:
        raise ConfigError([f"push {push.name}: tls: {error.strerror or error}"]) from None
