"""A TCP proxy before the server that ill-treats what passes through it, as networks do."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto

from ..clusters import free_port


class Treatment(Enum):
    """Of one connection."""

    PASS = auto()
    SILENCE = auto()
    """Takes what either side sends and passes none of it on: neither side is told."""
    NO_ANSWER = auto()
    """Passes the next request on, and cuts the connection in place of the answer."""
    TRICKLE = auto()
    """A byte a second."""


@dataclass(eq=False)
class _Line:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    treatment: Treatment = Treatment.PASS
    has_asked: bool = False


@dataclass
class Proxy:
    port: int
    _server_port: int
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _lines: list[_Line] = field(default_factory=list)

    def treat(self, treatment: Treatment) -> None:
        """All connections that there are now; later ones pass."""
        for line in list(self._lines):
            line.treatment, line.has_asked = treatment, False

    def reset(self) -> None:
        """All connections, so that both sides see an error at once."""
        for line in list(self._lines):
            self._loop.call_soon_threadsafe(_reset, line)

    async def serve(self) -> None:
        async with await asyncio.start_server(self._accept, "127.0.0.1", self.port) as server:
            await server.serve_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.close()
            return
        line = _Line(writer, to_server)
        self._lines.append(line)
        try:
            with suppress(asyncio.CancelledError):  # at the end of the proxy
                await asyncio.gather(self._pass_on(line, reader, to_server), self._pass_on(line, from_server, writer))
        finally:
            self._lines.remove(line)

    async def _pass_on(self, line: _Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one side is gone, which ends the line in both directions."""
        with suppress(OSError):
            while data := await reader.read(65536):
                if line.treatment is Treatment.SILENCE:
                    continue
                if line.treatment is Treatment.NO_ANSWER:
                    if writer is line.client and line.has_asked:
                        _reset(line)
                        return
                    line.has_asked |= writer is line.server
                if line.treatment is Treatment.TRICKLE:
                    for byte in data:
                        if not writer.is_closing():
                            writer.write(bytes([byte]))
                            await asyncio.sleep(1)
                    continue
                writer.write(data)
                await writer.drain()
        for end in (line.client, line.server):
            end.close()


def _reset(line: _Line) -> None:
    for end in (line.client, line.server):
        own: socket.socket | None = end.get_extra_info("socket")
        if own is not None:
            with suppress(OSError):
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.transport.abort()


@contextmanager
def proxy(server_port: int) -> Iterator[Proxy]:
    running = Proxy(free_port(), server_port)
    loop = running._loop
    serving = loop.create_task(running.serve())

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(serving)
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    thread = threading.Thread(target=run, name="proxy", daemon=True)
    thread.start()
    try:
        yield running
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join(timeout=10)
