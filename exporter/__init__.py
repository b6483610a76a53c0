"""agentos-exporter: Prometheus metrics of Agno's AgentOS, exact to the last token.

AgentOS (HTTP API or database) -> sources -> core.model.Trace: the spans visible now
    -> ledger: which of them are new -> counting.fold: increments per (metric, labels)
    -> bookkeeping.intake: one transaction of counted span ids, changed totals and the cursor
    -> metrics.totals -> metrics.render: rendered bytes -> service.web: /metrics
"""

import os
from typing import Final

__version__: Final = "0.1.0"

REVISION_VARIABLE: Final = "AGENTOS_EXPORTER_REVISION"
"""Environment variable with the commit that a container image was built from."""


def revision() -> str:
    """Commit that this exporter was built from, '' where the build did not say."""
    return os.environ.get(REVISION_VARIABLE, "")
