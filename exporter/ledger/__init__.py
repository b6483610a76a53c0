"""The durable state: which spans are counted, and the totals."""
