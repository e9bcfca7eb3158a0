"""Hosts in network namespaces of their own, with a cable to each server that can be cut.

Every host reaches PostgreSQL and Redis over a cable each: a pair of virtual interfaces between its
namespace and a hub's, in which the proxies listen. A cable that is cut loses every packet
silently: neighbours are fixed, so that nobody is told that the other end is gone. It needs root
and virtual interfaces; without them the proxies listen on this host's loopback addresses, and a
cut is a proxy that swallows what it is sent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from proxy import Proxy

CLONE_NEWNET = 0x40000000
PORTS = {"postgres": 5432, "redis": 6379}


def enter(pid: int) -> None:
    """Move the calling thread, and the ones it starts later, into a process's network."""
    handle = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(handle)


def available() -> bool:
    """Whether this user may make namespaces and cables between them."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        return False
    tried = ["unshare", "-n", "ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


@dataclass
class Link:
    """One host's way to one server, and the proxy at its far end."""

    proxy: Proxy
    address: str
    cut: Callable[[], None]
    """Lose every packet from now on, silently."""
    mend: Callable[[], None]

    async def reset(self) -> None:
        """Reset what stands, and refuse what comes."""
        await self.proxy.refuse()

    async def accept(self) -> None:
        """Accept connections again."""
        await self.proxy.listen()


@dataclass
class Network:
    """The hub and the hosts, each held by a process that only sleeps."""

    holders: list[subprocess.Popen[bytes]] = field(default_factory=list)
    links: int = 0
    real: bool = field(default_factory=available)

    def namespace(self) -> int:
        """A new network; gives the process that holds it, or 0 where there can be none."""
        if not self.real:
            return 0
        holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo; exec sleep 3600"],
                                  stdout=subprocess.PIPE)  # fmt: skip
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.stdout.close()
        self.holders.append(holder)
        return holder.pid

    def _ip(self, pid: int, *words: str) -> None:
        subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", *words], check=True)

    def link(self, hub: int, host: int, target: str, port: int) -> Link:
        """A cable between two networks, and a proxy to a server at the hub's end of it."""
        self.links += 1
        if not self.real:
            return self._loopback(target, port)
        near, far = f"host{self.links}", f"hub{self.links}"
        there, here = f"10.77.{self.links}.2", f"10.77.{self.links}.1"
        macs = [f"02:00:00:00:{self.links:02x}:0{end}" for end in (1, 2)]
        pair = ["type", "veth", "peer", "name", near, "address", macs[1], "netns", str(host)]
        self._ip(hub, "link", "add", far, "address", macs[0], *pair)
        for pid, device, own, other, mac in (
            (hub, far, here, there, macs[1]),
            (host, near, there, here, macs[0]),
        ):
            self._ip(pid, "address", "add", f"{own}/24", "dev", device)
            self._ip(pid, "link", "set", device, "up")
            fixed = ["lladdr", mac, "nud", "permanent", "dev", device]
            self._ip(pid, "neighbour", "replace", other, *fixed)

        def mend() -> None:
            self._ip(hub, "link", "set", far, "up")
            fixed = ["lladdr", macs[1], "nud", "permanent", "dev", far]
            self._ip(hub, "neighbour", "replace", there, *fixed)

        return Link(
            Proxy(target, bind=lambda: listening(hub, here, port)),
            here,
            lambda: self._ip(hub, "link", "set", far, "down"),
            mend,
        )

    def _loopback(self, target: str, port: int) -> Link:
        address = f"127.0.77.{self.links}"
        proxy = Proxy(target, bind=lambda: listening(0, address, port))
        return Link(
            proxy,
            address,
            lambda: setattr(proxy, "hang", True),
            lambda: setattr(proxy, "hang", False),
        )

    def remove(self) -> None:
        """Whatever is in a network goes with its last process."""
        for holder in self.holders:
            holder.kill()
            holder.wait()


def listening(pid: int, address: str, port: int) -> socket.socket:
    """A socket that listens in another network: it stays where it was made."""
    made: list[socket.socket] = []

    def make() -> None:
        if pid:
            enter(pid)
        made.append(socket.create_server((address, port)))

    maker = threading.Thread(target=make)
    maker.start()
    maker.join()
    return made[0]


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network that is gone afterwards."""
    made = Network()
    try:
        yield made
    finally:
        made.remove()
