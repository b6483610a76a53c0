"""Approvals, schedules and the like, whichever way they are read: the meaning of rows, and the position in each list.

A module for each part has its rule. Its rows come from the source: `api.surfaces` reads pages of lists,
`database.surfaces` rows of tables. Positions are the same, so an AgentOS can change from one to the other.
"""
