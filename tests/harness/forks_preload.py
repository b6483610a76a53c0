"""Imported by the process that `forks` forks from, and by no other."""

from tests.harness import forks

forks.preload()
