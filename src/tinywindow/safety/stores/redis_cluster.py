"""A Cluster whose slots may move while it is used: ASK is followed on one connection.

redis-py sends `ASKING` and the command that it is for as two commands, each on whichever connection
is free; on two connections the second is sent back, again and again, until it gives up. It also
knows no node that has no slots yet, which is where slots are moved to when a Cluster grows.
"""

from __future__ import annotations

from typing import Any, cast

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode, PipelineCommand

__all__ = ["MovingCluster"]


class MovingCluster(RedisCluster):
    """redis-py's Cluster, which can be read while the key's slot moves."""

    def get_node(
        self, host: str | None = None, port: int | None = None, node_name: str | None = None
    ) -> ClusterNode | None:
        """A node by address or name; by name, as an ASK gives it, one that is asked in one go."""
        node = super().get_node(host, port, node_name)
        if node_name is None:
            return node
        if node is None:
            node = self._met(node_name)
        # The proxy has what redis-py uses of a node; its class cannot be chosen.
        return cast("ClusterNode", _Asked(node))

    def _met(self, name: str) -> ClusterNode:
        """Take on a node that has no slots yet; it is closed with the others."""
        host, _, port = name.rpartition(":")
        manager = self.nodes_manager
        node = ClusterNode(host, int(port), "primary", **manager.connection_kwargs)
        manager.set_nodes(manager.nodes_cache, {name: node})
        return node


class _Asked:
    """A node that takes a command of a slot which is on its way there."""

    def __init__(self, node: ClusterNode) -> None:
        self._node = node

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the node has
        return getattr(self._node, name)

    async def execute_command(self, *words: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py has it
        """Send a command behind its `ASKING`, on the same connection."""
        if words == ("ASKING",):
            return True
        options.pop("asking", None)
        both = [PipelineCommand(0, "ASKING"), PipelineCommand(1, *words, **options)]
        await self._node.execute_pipeline(both)
        for one in both:
            if isinstance(one.result, Exception):
                raise one.result
        return both[1].result
