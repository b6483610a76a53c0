"""Metrics are sent to those who cannot scrape.

publisher.Snapshot -> otlp or remote_write: bodies of requests -> target: when they are sent, and what came of it
"""
