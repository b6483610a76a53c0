"""The web server: /metrics, a landing page, and the two health routes. A scrape only sends bytes that are ready.

`site.Site` is all it knows of the rest: it never reaches a poller, a source or the ledger, so no request can cause a
poll.
"""
