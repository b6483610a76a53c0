"""The checks before every answer: the rate limit, the headers and the passwords of `--web.config.file`.

As in exporter-toolkit, too many requests are refused before anything else, and all other answers get the headers. One
bcrypt runs at a time, and its results are kept.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import bcrypt
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from exporter.config.web import RateLimit, WebConfig
    from exporter.service.web.live import LiveWebConfig

_KEPT: Final = 100
"""Results of bcrypt that are kept."""
_NOBODY: Final = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi"
"""The hash that an unknown user's password is compared with, so that it takes as long: exporter-toolkit's own."""
_BCRYPT_BYTES: Final = 72
"""bcrypt uses no more bytes of a password; the library refuses longer ones."""


class Guard:
    """The application behind the rate limit, headers and passwords that are in force."""

    def __init__(self, app: ASGIApp, live: LiveWebConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._live = live
        self._bucket = _Bucket(clock)
        self._passwords = _Passwords()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        config = self._live.config
        if not self._bucket.allows(config.rate_limit):
            await PlainTextResponse("Too Many Requests\n", 429)(scope, receive, send)
            return
        send = _with_headers(config, scope, send)
        if config.users and not await self._passwords.allow(config, Headers(scope=scope).get("authorization", "")):
            refusal = PlainTextResponse("Unauthorized\n", 401, {"www-authenticate": "Basic"})
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _with_headers(config: WebConfig, scope: Scope, send: Send) -> Send:
    request = Headers(scope=scope)
    # No route reads a body, so its bytes must not be taken for the next request.
    has_body = "transfer-encoding" in request or request.get("content-length", "0") != "0"

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["x-content-type-options"] = "nosniff"
            for name, value in config.headers:
                headers[name] = value
            if has_body:
                headers["connection"] = "close"
        await send(message)

    return send_with_headers


class _Bucket:
    """A token bucket that starts full."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._limit: RateLimit | None = None
        self._tokens = 0.0
        self._at = 0.0

    def allows(self, limit: RateLimit | None) -> bool:
        """Whether one more request may pass now."""
        if limit is None:
            return True
        now = self._clock()
        if limit != self._limit:
            self._limit, self._tokens, self._at = limit, float(limit.burst), now
        self._tokens = min(limit.burst, self._tokens + (now - self._at) / limit.interval)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Passwords:
    """Compares passwords with bcrypt's hashes, in a thread, and keeps what came out of it."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._key = os.urandom(32)
        self._kept: dict[bytes, bool] = {}
        """by a keyed digest of user, hash and password: whether they match"""

    async def allow(self, config: WebConfig, authorization: str) -> bool:
        """Whether a header names a user and his password."""
        credentials = _credentials(authorization)
        if credentials is None:
            return False
        user, password = credentials
        secret = config.users.get(user)
        hashed = _NOBODY if secret is None else secret.reveal()
        parts = (user.encode(), hashed.encode(), password)
        digest = hmac.new(self._key, b"".join(len(part).to_bytes(8, "big") + part for part in parts), hashlib.sha256)
        key = digest.digest()
        if key not in self._kept:  # known passwords do not wait for unknown ones
            async with self._lock:
                if key not in self._kept:
                    self._keep(key, matches=await asyncio.to_thread(_matches, password, hashed))
        return self._kept[key] and secret is not None

    def _keep(self, key: bytes, *, matches: bool) -> None:
        if len(self._kept) >= _KEPT:
            for old in random.sample(list(self._kept), _KEPT // 10):
                del self._kept[old]
        self._kept[key] = matches


def _credentials(authorization: str) -> tuple[str, bytes] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


def _matches(password: bytes, hashed: str) -> bool:
    try:
        return bcrypt.checkpw(password[:_BCRYPT_BYTES], hashed.encode())
    except ValueError:
        return False
