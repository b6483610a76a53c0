"""AgentOS read from the tables of its database."""
