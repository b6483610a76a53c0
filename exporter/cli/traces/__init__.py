"""`agentos-exporter traces list|show|sessions`: look into a live AgentOS, from an alert's exemplar to the cause.

What a person may see here is what AgentOS shows its operator: error texts, and prompts and answers on demand. It comes
from outside and goes to a terminal, so every text passes `texts.plain` and none is ever read as markup.
"""
