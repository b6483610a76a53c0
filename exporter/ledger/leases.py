"""Which AgentOS instances a process leads, if several processes share a state: a lease for each, in the state itself.

A lease is a row with the number of its term (the fencing token), which grows with each holder, and with the number of
commits so far. Each transaction that writes for an AgentOS checks both and keeps the row locked until it ends. So a
process that has lost a lease commits nothing any more, however late it notices, and a process that missed a commit
writes nothing over it.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from exporter.ledger.records import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

FLEET: Final = ""
"""The name of the lease for what concerns all instances together, such as budgets over all of them."""
WHOLE: Final = "all"
"""The row for the owner of the whole state, as during a copy; each AgentOS has a row of its own, see `row_of`."""
_PREFIX: Final = "agentos:"

MAKE_TABLES: Final = (
    """
CREATE TABLE IF NOT EXISTS lease (
    name text PRIMARY KEY, token bigint NOT NULL, holder text NOT NULL,
    until timestamptz NOT NULL, commits bigint NOT NULL
)
""",
    "CREATE TABLE IF NOT EXISTS replica (holder text PRIMARY KEY, until timestamptz NOT NULL, wants text NOT NULL)",
    "INSERT INTO lease VALUES ('all', 0, '', '-infinity', 0) ON CONFLICT DO NOTHING",
)
TABLES: Final = frozenset({"lease", "replica"})
_ALIVE: Final = """
INSERT INTO replica VALUES (:holder, clock_timestamp() + make_interval(secs => :seconds), :wants)
ON CONFLICT (holder) DO UPDATE SET until = excluded.until, wants = excluded.wants
"""
_PEERS: Final = "SELECT holder FROM replica WHERE until > clock_timestamp() AND wants = :wants ORDER BY holder"
_BURY: Final = """
DELETE FROM replica WHERE holder IN (
    SELECT holder FROM replica WHERE until < clock_timestamp() - interval '1 hour' FOR UPDATE SKIP LOCKED
)
"""
_RENEW: Final = """
UPDATE lease SET until = clock_timestamp() + make_interval(secs => :seconds)
WHERE holder = :holder AND name = ANY(CAST(:names AS text[])) RETURNING name, token, commits
"""
_INTRODUCE: Final = """
INSERT INTO lease SELECT unnest(CAST(:names AS text[])), 0, '', '-infinity', 0 ON CONFLICT DO NOTHING
"""
# Rows that another replica takes at this moment are skipped, so replicas never deadlock.
_ACQUIRE: Final = """
UPDATE lease SET token = token + 1, holder = :holder, until = clock_timestamp() + make_interval(secs => :seconds)
WHERE name IN (
    SELECT name FROM lease WHERE name = ANY(CAST(:names AS text[])) AND until < clock_timestamp()
    ORDER BY name LIMIT :most FOR UPDATE SKIP LOCKED
) RETURNING name, token, commits
"""
_LEADERS: Final = """
SELECT name, holder FROM lease WHERE until > clock_timestamp() AND name = ANY(CAST(:names AS text[]))
"""
_HOLD: Final = """
UPDATE lease SET until = clock_timestamp() + make_interval(secs => :seconds), commits = commits + 1
WHERE name = :name AND token = :token AND holder = :holder AND commits = :commits RETURNING commits
"""
_FIND: Final = "SELECT token, holder, commits FROM lease WHERE name = :name FOR UPDATE"
_IN_USE: Final = "SELECT holder FROM lease WHERE until > clock_timestamp() AND holder <> :holder ORDER BY name LIMIT 1"
_OWNER: Final = "SELECT holder FROM lease WHERE name = 'all' AND until > clock_timestamp()"
_SERIALISE: Final = "SELECT 1 FROM lease WHERE name = 'all' FOR UPDATE"
_SHARE: Final = "SELECT 1 FROM lease WHERE name = 'all' FOR SHARE"
_FENCE: Final = "UPDATE lease SET token = token + 1, until = clock_timestamp() WHERE holder <> :holder"
_RELEASE: Final = """
UPDATE lease SET until = clock_timestamp() WHERE holder = :holder AND name = ANY(CAST(:names AS text[]))
"""
_LEAVE: Final = "DELETE FROM replica WHERE holder = :holder"


def monotonic() -> float:
    """Monotonic seconds that go on while the machine is suspended, if the system has such a clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass(slots=True, eq=False)
class Lease:
    """A lease that this process holds. A lease that is lost and won again is a different one.

    `commits` are the known commits of all its holders so far.
    """

    token: int
    commits: int


@dataclass(frozen=True, slots=True)
class Election:
    """The leaders after a vote.

    Attributes:
        leaders: AgentOS → who leads it; those that nobody leads are missing.
        share: How many AgentOS instances this process is to lead.

    """

    leaders: Mapping[str, str] = field(default_factory=dict)
    share: int = 0


class Leases:
    """The leases that one process holds. Methods without a connection return at once, and any thread may call them."""

    def __init__(self, holder: str, seconds: float, monotonic: Callable[[], float] = monotonic) -> None:
        """Hold no lease yet.

        Args:
            holder: Name of this process, unlike that of any other.
            seconds: How long a lease lasts after it was renewed.
            monotonic: A monotonic clock, in seconds.

        """
        self.holder = holder
        self.seconds = seconds
        self.now = monotonic
        self._guard = threading.Lock()
        self._held: dict[str, Lease] = {}
        """row → lease"""
        self._deadline = 0.0
        self.term = 0
        """grows whenever a lease is lost"""

    @property
    def held(self) -> dict[str, Lease]:
        """The leases that are held and have not run out, by AgentOS."""
        self.expire()
        with self._guard:
            return {_name(row): lease for row, lease in self._held.items() if row != WHOLE}

    def expire(self) -> None:
        """Lose all leases if they ran out: another process may have taken them."""
        with self._guard:
            if self._held and self.now() >= self._deadline:
                self._held.clear()
                self.term += 1

    def forget(self, row: str) -> None:
        """Forget this lease: another process may have it."""
        with self._guard:
            if self._held.pop(row, None) is not None:
                self.term += 1

    def give_up(self, rows: Iterable[str]) -> None:
        """Forget these leases. Their time goes on, since nothing of these instances is shown any more."""
        with self._guard:
            for row in rows:
                self._held.pop(row, None)

    def find(self, row: str) -> Lease | None:
        """The lease of a row, if it is held."""
        with self._guard:
            return self._held.get(row)

    def elected(self, renewed: Mapping[str, Lease], won: Mapping[str, Lease], began: float) -> None:
        """Take note of the leases of a committed vote. A lease that was lost during the vote stays lost.

        Args:
            renewed: Leases that were renewed, by row.
            won: New leases, by row.
            began: When the vote began, in monotonic seconds.

        """
        with self._guard:
            kept = {row: lease for row, lease in renewed.items() if self._held.get(row) is lease}
            if self._held.keys() - kept.keys():
                self.term += 1
            self._held = kept | dict(won)
            self._deadline = began + self.seconds

    # In a transaction

    def vote(
        self, connection: sa.Connection, wanted: Collection[str]
    ) -> tuple[Election, dict[str, Lease], dict[str, Lease]]:
        """Renew the leases of this process, and take free ones up to a fair share of `wanted`; see `elected`."""
        # In one order everywhere: two that insert the same rows would wait for each other.
        rows = sorted(row_of(name) for name in wanted)
        wants = digest(json.dumps(rows))
        self._send(connection, _SHARE)
        self._send(connection, _ALIVE, wants=wants)
        self._send(connection, _BURY)
        with self._guard:
            held = dict(self._held)
        renewed = {
            row: held[row]
            for row, token, commits in self._send(connection, _RENEW, names=[*held]).all()
            if (token, commits) == (held[row].token, held[row].commits)
        }
        # Replicas with other wanted instances do not share: instances that they do not want would have no leader.
        most = share(len(rows), list(self._send(connection, _PEERS, wants=wants).scalars()), self.holder)
        won: dict[str, Lease] = {}
        # A lease that was just lost is not taken back in the same turn: its instance must be forgotten first.
        free = [row for row in rows if row not in held]
        free_share = most - len(renewed.keys() & {*rows})
        if free and free_share > 0 and self.owner(connection) is None:
            self._send(connection, _INTRODUCE, names=free)
            taken = self._send(connection, _ACQUIRE, names=free, most=free_share).all()
            won = {row: Lease(token, commits) for row, token, commits in taken}
        leaders = self._send(connection, _LEADERS, names=rows).all()
        return Election({_name(row): holder for row, holder in leaders}, most), renewed, won

    def hold(self, connection: sa.Connection, row: str, lease: Lease) -> bool:
        """Lock a lease for this transaction, and count its commit.

        Args:
            connection: An open transaction.
            row: The row of the lease.
            lease: The lease as this process knows it.

        Returns:
            False if the lease is lost.

        """
        held = self._send(connection, _HOLD, name=row, token=lease.token, commits=lease.commits)
        return held.first() is not None

    def was_committed(self, connection: sa.Connection, row: str, lease: Lease) -> bool | None:
        """Find out whether the transaction was committed during which the connection broke.

        Args:
            connection: An open transaction.
            row: The row of the lease.
            lease: The lease, with the number of commits before that transaction.

        Returns:
            Whether it was committed; None if the lease is lost.

        """
        # While the row is locked, a broken transaction cannot change the count any more.
        token, holder, commits = self._send(connection, _FIND, name=row).one()
        if (token, holder) != (lease.token, self.holder) or commits not in {lease.commits, lease.commits + 1}:
            return None
        return bool(commits == lease.commits + 1)

    def own(self, connection: sa.Connection) -> tuple[str, Lease | None]:
        """Take the whole state, unless another process leads a part of it: (that process or '', the lease)."""
        self._send(connection, _SERIALISE)
        other = self._send(connection, _IN_USE).scalar()
        if other is not None:
            return str(other), None
        # A process that hangs, and whose leases are over, must not commit when it continues.
        self.fence(connection)
        ((_, token, commits),) = self._send(connection, _ACQUIRE, names=[WHOLE], most=1).all()
        return "", Lease(token, commits)

    def owner(self, connection: sa.Connection) -> str | None:
        """The process that owns the whole state; None if none does."""
        return self._send(connection, _OWNER).scalar()

    def serialise(self, connection: sa.Connection) -> None:
        """Keep all other processes from doing this, and from voting, until the transaction ends."""
        self._send(connection, _SERIALISE)

    def fence(self, connection: sa.Connection) -> None:
        """End the leases of all other processes."""
        self._send(connection, _FENCE)

    def release(self, connection: sa.Connection, names: Iterable[str]) -> None:
        """Make these AgentOS instances free for other processes. Nothing of them is shown here any more."""
        self._release(connection, [row_of(name) for name in names])

    def leave(self, connection: sa.Connection) -> None:
        """Make all instances free for other processes; this process is a replica no longer."""
        self._release(connection, list(self._held))
        self._send(connection, _LEAVE)

    def _release(self, connection: sa.Connection, rows: list[str]) -> None:
        self._send(connection, _RELEASE, names=rows)
        self.give_up(rows)

    def _send(self, connection: sa.Connection, text: str, **values: object) -> sa.CursorResult[*tuple[Any, ...]]:
        parameters = {"holder": self.holder, "seconds": self.seconds, **values}
        statement = sa.text(text)
        return connection.execute(statement, {name: parameters[name] for name in statement.compile().params})


def row_of(agentos: str) -> str:
    """The row of who leads an AgentOS."""
    return _PREFIX + agentos


def _name(row: str) -> str:
    return row.removeprefix(_PREFIX)


def share(count: int, replicas: list[str], me: str) -> int:
    """How many of the instances one replica may lead.

    All replicas get the same number, and the first ones in order one of the remainder each. When a replica goes, no
    other gets less.

    Args:
        count: The number of instances.
        replicas: The living replicas.
        me: This replica.

    """
    if me not in replicas:
        return 0
    most, rest = divmod(count, len(replicas))
    return most + (replicas.index(me) < rest)
