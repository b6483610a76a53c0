"""The daemon: polls, publishes and serves."""
