"""How many bytes of traces were read from an AgentOS, and how many there are."""

import httpx

from tests.harness.inprocess import Shown

_ENDPOINTS = ("traces_search", "traces_count", "traces_list", "trace_detail", "trace_span")


def read_bytes(shown: Shown) -> float:
    """Return the bytes of all answers about traces that the exporter has read."""
    return sum(shown("agentos_exporter_api_response_bytes_total", endpoint=endpoint) for endpoint in _ENDPOINTS)


async def read_once(client: httpx.AsyncClient) -> int:
    """Return the bytes of all traces, each read just once."""
    total = page = 0
    while True:
        page += 1
        answer = await client.post("/traces/search", json={"limit": 50, "page": page, "group_by": "run"})
        if not answer.json()["data"]:
            return total
        total += len(answer.content)
