"""AgentOS read through its HTTP API."""
