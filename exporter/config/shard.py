"""Which AgentOS instances a daemon reads, where several divide them among themselves by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_64_BITS: Final = 2**64 - 1
_FNV_OFFSET: Final = 0xCBF29CE484222325
_FNV_PRIME: Final = 0x100000001B3
_JUMP: Final = 2862933555777941757


@dataclass(frozen=True, slots=True)
class Shard:
    """The part with this `index`, from 0, of `count` parts."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index} of {self.count}"

    def has(self, name: str) -> bool:
        """Whether the AgentOS of this name belongs to the shard. Every name belongs to one shard."""
        return _jump(_fnv(name.encode()), self.count) == self.index


def _fnv(data: bytes) -> int:
    """FNV-1a of 64 bits, as kube-state-metrics hashes."""
    digest = _FNV_OFFSET
    for byte in data:
        digest = (digest ^ byte) * _FNV_PRIME & _64_BITS
    return digest


def _jump(key: int, count: int) -> int:
    """The shard of a key by jump consistent hashing (Lamping and Veach, 2014): one more shard moves 1/n of the keys."""
    shard, following = -1, 0
    while following < count:
        shard = following
        key = (key * _JUMP + 1) & _64_BITS
        following = int((shard + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return shard
