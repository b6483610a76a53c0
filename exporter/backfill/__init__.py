"""The past of an AgentOS as OpenMetrics with timestamps, for Prometheus to take as blocks.

    source.past → batches of traces → counting: increments by the sample that first shows them
        → work file, a transaction a batch → output: sums of increments, sample by sample

Counting is that of the daemon. Only the time of an increment is another: the end of its span, rather than the moment
when the span is seen. The state of the daemon is read, to begin nowhere else than it ends, and never changed.
"""
