"""The exceptions that leave the module which raises them.

Some modules have their own beside these: `document.RefusedError` and `sources.api.proxies.ProxyRefused` for a single
value, and the answers in `sources.api.http` that a reader acts on.

ExporterError
├── ConfigError            the configuration as a whole: every problem at once
├── ListenError            the listen address cannot be had
├── ExportError            a vendor's usage export cannot be read as what it is
├── StateError             the state file cannot be used, read or written
│   └── StateRefused       ... and never will be: foreign, broken, locked, of another schema
└── SourceError            one poll of one AgentOS failed; `outcome` names how
    ├── Unreachable        refused, DNS, TLS, broken connection
    ├── SourceTimeout      no answer in time
    ├── Unauthorized       401, 403
    ├── ServerFailed       429, 5xx
    ├── BadAnswer          other 4xx, HTML, wrong types, cut bodies
    ├── NoDetails          the route for the detail of a run is not there
    ├── NoPast             the past cannot be read this way
    └── SilentEmpty        an empty 200 where traces are known to exist
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExporterError(Exception):
    """Base of all errors whose text is meant for the operator: it names the place and the cure."""


class ConfigError(ExporterError):
    """The configuration is refused.

    `problems` holds one line per mistake, each starting with its path in the file (`agentos[0].url: ...`).
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class ListenError(ExporterError):
    """The web server cannot listen on its configured address."""


class ExportError(ExporterError):
    """A vendor's usage export cannot be read. The text names the file, the row and the cure."""


class StateError(ExporterError):
    """The state file could not be read or written just now (full disk, I/O error)."""


class StateRefused(StateError):
    """The state file must not be used: foreign, truncated, read-only, locked, of another schema. It stays as it is."""


class SourceError(ExporterError):
    """One poll of one AgentOS failed. `outcome` is its value in `agentos_exporter_polls_total`.

    `status` is the HTTP status of the answer, if an answer caused the failure.
    """

    outcome: ClassVar[str] = "bad_answer"
    status: int | None = None


class Unreachable(SourceError):
    """No connection: refused, unknown host, TLS failure, connection lost."""

    outcome = "unreachable"


class SourceTimeout(SourceError):
    """AgentOS did not answer before the deadline."""

    outcome = "timeout"


class Unauthorized(SourceError):
    """401 or 403: the token is missing, wrong, expired, or lacks a scope."""

    outcome = "unauthorized"


class ServerFailed(SourceError):
    """429 or 5xx. `retry_after` is the Retry-After of the answer, in seconds."""

    outcome = "server_error"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class BadAnswer(SourceError):
    """An answer that is not what an AgentOS says: another 4xx, HTML, wrong types, a cut body."""

    outcome = "bad_answer"


class NoDetails(SourceError):
    """AgentOS has no route for the detail of a run. It never fails a poll."""


class NoPast(SourceError):
    """AgentOS has no way to read its past: to try again is of no use."""


class SilentEmpty(SourceError):
    """AgentOS answers 200 with nothing although traces it once showed should still be there.

    AgentOS swallows the errors of its database and answers with an empty page; so does a token that sees only its own
    runs.
    """

    outcome = "silent_empty"
