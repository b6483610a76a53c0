"""agno's own client of an AgentOS, over our transport: its requests are authorised, unsampled, bounded and counted."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from agno.client import AgentOSClient

from exporter.core.errors import BadAnswer
from exporter.sources.api.http import Api

REQUEST_TIMEOUT: Final = 30.0
"""Seconds."""


class Client(AgentOSClient):
    """Sends the requests of agno's client through `api`; `wait` applies to one request, in seconds."""

    def __init__(self, api: Api) -> None:
        super().__init__(api.base_url)
        self._api = api
        self.wait = REQUEST_TIMEOUT

    async def _arequest(
        self,
        method: str,
        endpoint: str,
        data: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,  # noqa: ARG002 - ours are sent
        as_form: bool = False,  # noqa: ARG002, FBT001, FBT002 - agno's signature
    ) -> Any:  # noqa: ANN401 - whatever JSON says
        label = (
            endpoint.strip("/").replace("/", "_") if endpoint.count("/") == 1 else endpoint.split("/")[1] + "_detail"
        )
        if method == "POST":
            answer = await self._api.post(endpoint, params or {}, data, endpoint=label, timeout=self.wait)
        else:
            answer = await self._api.get(endpoint, params or {}, endpoint=label, timeout=self.wait)
        try:
            return msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadAnswer(f"{label}: the answer is not JSON; is this the URL of an AgentOS?") from error
