"""What is beside traces, however it is read: what its rows mean, which of them ended, and how far each list was read.

A module for each part holds its rule. Where its rows come from is the source's: `api.surfaces` asks for pages of lists,
`database.surfaces` for rows of tables. Positions are the same, so an AgentOS can change from one to the other.
"""
