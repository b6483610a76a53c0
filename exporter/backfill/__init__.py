"""The past of an AgentOS as OpenMetrics with timestamps, of which Prometheus makes blocks.

    source.past → batches of traces → counting: increments by the sample that first shows them
        → work file, a transaction a batch → output: sums of increments, sample by sample

Spans are counted as the daemon counts them. Only the time of an increment differs: it is the end of its span, rather
than the moment when the span is read. The state of the daemon is read, so that the backfill ends where the daemon
begins, and never changed.
"""
