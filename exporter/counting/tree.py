"""The place of each span in its trace: its run and its agent. Pure.

- `root` is the outermost AGENT, TEAM or WORKFLOW span, `agent` the nearest AGENT or TEAM at or above the span.
- In streaming workflows, LLM and TOOL spans are siblings of their agent: under a WORKFLOW with exactly one AGENT or
  TEAM child, that child is their agent. Such spans wait until their trace is complete. If no such sibling appears, they
  wait a while longer, since it may be written last.
- An LLM span whose nearest typed ancestor is an LLM span is a vendor's view of the same call, and is not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.core.model import RUN_KINDS, SpanKind

if TYPE_CHECKING:
    from exporter.core.model import Trace

# Looking up a member of an enum is slow, so it is done once.
_LLM, _TOOL, _WORKFLOW = SpanKind.LLM, SpanKind.TOOL, SpanKind.WORKFLOW
AGENTS: Final = frozenset({SpanKind.AGENT, SpanKind.TEAM})
_UNTYPED: Final = frozenset({SpanKind.HTTP, SpanKind.OTHER})
BESIDE_THEIR_AGENT: Final = frozenset({_LLM, _TOOL})

NONE: Final = -1
"""no such span"""
NOWHERE: Final = -2
"""in place of an agent: the span is not to be counted at all"""
LATER: Final = -3
"""in place of an agent: the span is not to be counted yet, as a later reading may show its agent"""


class Tree:
    """The place of each span in a trace. All lists are parallel to `trace.spans`; -1 stands for none."""

    def __init__(self, trace: Trace) -> None:
        self.spans = trace.spans
        self.still_open = trace.open
        self.root: list[int] = []
        """outermost AGENT, TEAM or WORKFLOW at or above"""
        self.agent: list[int] = []
        """nearest AGENT or TEAM at or above"""
        self.above: list[int] = []
        """nearest span above that is typed (not HTTP, not OTHER)"""
        self.owner: list[int] = []
        """nearest AGENT, TEAM or WORKFLOW at or above"""
        self.sessions: dict[int, str | None] = {}
        self.users: dict[int, str] = {}
        self._model_calls: dict[int, bool] | None = None
        self.agents_below: dict[int, list[int]] = {}
        """WORKFLOW → its AGENT and TEAM children"""
        spans, roots, agents, aboves, owners = self.spans, self.root, self.agent, self.above, self.owner
        for index, span in enumerate(spans):
            parent, kind = span.parent, span.kind
            if parent < 0:
                root = agent = owner = above = -1
            else:
                root, agent, owner = roots[parent], agents[parent], owners[parent]
                above = aboves[parent] if spans[parent].kind in _UNTYPED else parent
            if kind in RUN_KINDS:
                owner = index
                if root < 0:
                    root = index
                if kind in AGENTS:
                    agent = index
                    if parent >= 0 and spans[parent].kind is _WORKFLOW:
                        self.agents_below.setdefault(parent, []).append(index)
            roots.append(root)
            agents.append(agent)
            aboves.append(above)
            owners.append(owner)

    def session_of(self, run: int) -> str | None:
        """Session of a run: its own, else the first that a span below it names (a workflow span may name none)."""
        if run < 0:
            return None
        if run not in self.sessions:
            below = (span.session_id for root, span in zip(self.root, self.spans, strict=True) if root == run)
            self.sessions[run] = next(filter(None, below), None)
        return self.sessions[run]

    def user_of(self, index: int) -> str:
        """User of a span: that of the nearest AGENT or TEAM with one, else the first that its run names, else ''."""
        agent, root = self.agent_of(index), self.root[index]
        while agent >= 0:
            if user := self.spans[agent].user_id:
                return user
            parent = self.spans[agent].parent
            agent = self.agent[parent] if parent >= 0 else -1
        if root < 0:
            return self.spans[index].user_id or ""
        if root not in self.users:
            below = (span.user_id for place, span in zip(self.root, self.spans, strict=True) if place == root)
            self.users[root] = next(filter(None, below), "")
        return self.users[root]

    def model_calls(self) -> dict[int, bool]:
        """AGENT or TEAM that called a model → whether one of its calls failed."""
        if self._model_calls is None:
            self._model_calls = calls = dict[int, bool]()
            for index, span in enumerate(self.spans):
                if span.kind is _LLM:
                    agent = self.agent_of(index)
                    calls[agent] = calls.get(agent, False) or span.error_type is not None
        return self._model_calls

    def beside_agent(self, index: int) -> bool:
        """Whether the span is under a workflow step without an agent in between: its agent may be a sibling."""
        owner = self.owner[index]
        return self.spans[index].kind in BESIDE_THEIR_AGENT and owner >= 0 and self.spans[owner].kind is _WORKFLOW

    def agent_for(self, index: int, *, final: bool) -> int:
        """`agent_of` an LLM or TOOL span that is to be counted; `NOWHERE` if it never is, `LATER` if it is not yet.

        A vendor's view of the LLM call above it is never counted.
        """
        above = self.above[index]
        if above >= 0 and self.spans[above].kind is _LLM and self.spans[index].kind is _LLM:
            return NOWHERE
        if not final and self.beside_agent(index) and (self.still_open or not self.agents_below.get(self.owner[index])):
            return LATER
        return self.agent_of(index)

    def agent_of(self, index: int) -> int:
        """The agent of a span, -1 for none."""
        siblings = self.agents_below.get(self.owner[index], ()) if self.beside_agent(index) else ()
        return siblings[0] if len(siblings) == 1 else self.agent[index]
