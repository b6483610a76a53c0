"""The AgentOS of this process."""

from tests.harness.worlds import built, folder, world  # noqa: F401 - fixtures
