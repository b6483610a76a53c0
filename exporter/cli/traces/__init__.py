"""`agentos-exporter traces list|show|sessions`: look into a live AgentOS, from an alert's exemplar to the cause.

A person sees here what AgentOS shows its operator: error texts, and prompts and answers on demand. These texts come
from outside and go to a terminal, so each passes `texts.plain`, and none is read as markup.
"""
