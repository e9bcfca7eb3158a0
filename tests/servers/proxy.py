"""A proxy that spoils a connection: latency, a hang, a dropped or false reply, resets, refusal."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Proxy:
    """Listens on a Unix socket or, where `path` is empty, on a TCP port, and passes on to `target`.

    `bind` makes the listening socket instead, such as one in another network namespace.

    Faults are plain attributes, and take effect at once for connections that stand too.
    """

    target: str
    path: str = ""
    latency_s: float = 0.0
    hang: bool = False
    drop_replies: int = 0
    reply_with: bytes | None = None
    tls: ssl.SSLContext | None = None
    port: int = 0
    bind: Callable[[], socket.socket] | None = None
    requests: int = 0
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    async def listen(self) -> None:
        if self.bind is not None:
            self._server = await asyncio.start_server(self._meet, sock=self.bind(), ssl=self.tls)
        elif self.path:
            self._server = await asyncio.start_unix_server(self._meet, self.path, ssl=self.tls)
        else:
            self._server = await asyncio.start_server(
                self._meet, "127.0.0.1", self.port, ssl=self.tls
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Listen no longer, and reset what stands."""
        if self._server is not None:
            self._server.close()
        self.reset()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def reset(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                back, onward = await asyncio.open_unix_connection(self.target)
                self._writers |= {writer, onward}
                # Either end gone is the end of both.
                ways = [self._requests(reader, onward, writer), self._replies(back, writer)]
                tasks = [asyncio.ensure_future(way) for way in ways]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for one in tasks:
                        one.cancel()
                    await asyncio.wait(tasks)
                    onward.transport.abort()
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        onward: asyncio.StreamWriter,
        writer: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                self.requests += 1
                if self.reply_with is not None:
                    writer.write(self.reply_with * max(data.count(b"\r\n*") + 1, 1))
                elif not self.hang:
                    await asyncio.sleep(self.latency_s)
                    onward.write(data)

    async def _replies(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await back.read(65_536):
                while self.hang:
                    await asyncio.sleep(0.005)
                if self.drop_replies > 0:
                    self.drop_replies -= 1
                    return
                writer.write(data)
