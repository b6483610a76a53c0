"""What the ledger counted, beside what AgentOS or a vendor says of the same days, and why they differ.

    usage export → exports: items → statement ─┐
    AgentOS's daily metrics → statement ───────┤
    daily sums of the ledger → ours ───────────┴→ compare → report: lines, each with its reasons

Everything here is pure but for the reading of files. Money is in units of 10**-18 USD, and what nobody told is absent,
never 0.
"""
