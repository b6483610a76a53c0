"""The state file: what is counted, and what it adds up to."""
