"""A network that can be cut: a TCP relay on the loopback, between a client and a server."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

_CHUNK = 1 << 16


class Relay:
    """Passes bytes on, in both directions, until it is cut.

    While it is cut nothing passes and nothing is refused: connections hang, new ones too, as
    when packets are dropped on the way. Afterwards all go on where they were.

    Parameters
    ----------
    port : int
        Where clients connect.
    server_port : int
        Where the server listens.
    """

    def __init__(self, port: int, server_port: int) -> None:
        self.port, self._server_port = port, server_port
        self._delay_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(self._start())

    def cut(self) -> None:
        """Let nothing pass."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def heal(self) -> None:
        """Let all pass again."""
        self._loop.call_soon_threadsafe(self._open.set)

    def slow(self, delay_s: float) -> None:
        """Let every piece that passes take longer from now on. [s]"""
        self._delay_s = delay_s

    def close(self) -> None:
        """End all connections."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    async def _start(self) -> asyncio.Server:
        self._open.set()
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await self._open.wait()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.close()
            return
        try:
            both = (self._pass(reader, back), self._pass(there, writer))
            tasks = [asyncio.ensure_future(one) for one in both]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in (writer, back):
                end.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._open.wait()
                if self._delay_s:
                    await asyncio.sleep(self._delay_s)
                writer.write(data)
                await writer.drain()
