"""The store as everybody here uses it: commands and scripts, bounded in time, with our errors.

redis-py waits 5 s and retries ten times unless told otherwise. Here one bound covers a whole round trip
(waiting for a connection, connecting, sending, reading), and nothing is sent twice: a connection that
died while idle is replaced before anything is written to it, and a call that failed after that may have
happened, so only its caller can know whether to repeat it.

Where callers must not wait for a store that is out, only those wait that were under way when it went out:

    call ──no answer in time──► out ──► every other call fails at once, and is never sent
                                 └► a watch asks, on new connections, until it is back
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import hiredis
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from runtime.store.errors import CommandFailed, InvalidStoreUrl, StoreOut, StoreUnavailable
from runtime.store.health import Health

DEFAULT_TIMEOUT_S = 0.1
PATIENCE_STEPS = 5
"""Steps that a time-out is counted in."""
MAX_CONNECTIONS = 16

Word = str | bytes | int
"""One word of a command."""
Reply = Any
"""bytes, int, None, or a list of replies."""

_pack: Callable[[tuple[Word, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]
"""A command as it is sent; redis-py's own way takes ten times as long. Declared for tuples of one word."""

_UNAVAILABLE = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError, ReadOnlyError, OSError)


_log = logging.getLogger(__name__)


class Script:
    """A Lua script, the files of `runtime/store/lua` named here one after the other.

    Made at import time: the text is read and hashed once.
    """

    def __init__(self, *names: str) -> None:
        folder = resources.files("runtime.store") / "lua"
        self.name = names[-1]
        self.text = "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __repr__(self) -> str:
        return f"Script({self.name})"


class ScriptCall(NamedTuple):
    """One run of a script."""

    script: Script
    keys: Sequence[str]
    args: Sequence[Word]

    def by_hash(self) -> tuple[Word, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.args)

    def by_text(self) -> tuple[Word, ...]:
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.args)


class _Connection(Protocol):
    """What we use of redis-py's connection."""

    async def send_packed_command(self, command: Iterable[bytes]) -> None: ...

    async def read_response(self) -> Reply: ...


class Store:
    """A Redis or Valkey, for one event loop. Connects on first use. `close` when done."""

    def __init__(
        self, pool: BlockingConnectionPool, place: str, timeout_s: float, fail_fast: bool = False
    ) -> None:
        self._pool: Any = pool
        self._fail_fast = fail_fast
        self._health = Health()
        self._place = place
        self._timeout_s = timeout_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watcher: asyncio.Task[None] | None = None
        """Asks whether the store is back, while it is out."""
        self._answering = asyncio.Event()
        self._answering.set()

    @classmethod
    def connect(cls, url: str, *, timeout_s: float = DEFAULT_TIMEOUT_S, fail_fast: bool = False) -> Store:
        """The store at a unix://, redis:// or rediss:// URL, user and password in it if need be.

        With `fail_fast` calls fail with `StoreOut` at once while it is out; else each waits for itself.

        TLS verifies the server against the system's authorities, or those of `?ssl_ca_certs=<file>`.
        Raises `InvalidStoreUrl`.
        """
        try:
            parts = urlsplit(url)
            place = (
                f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
            )
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=None,
                socket_timeout=None,
                socket_connect_timeout=None,
                protocol=2,
                driver_info=None,
            )
        except ValueError:
            raise InvalidStoreUrl(
                "a store's URL is unix:///path, redis://[user:password@]host[:port][/db] or rediss://..."
            ) from None
        return cls(pool, place, timeout_s, fail_fast)

    def __repr__(self) -> str:
        return f"Store({self._place})"

    async def ping(self) -> None:
        """Raises `StoreUnavailable`."""
        await self.execute("PING")

    async def execute(self, *command: Word) -> Reply:
        """The reply of one command. Raises `StoreUnavailable`, `CommandFailed`."""
        return _unwrap((await self.execute_many([command]))[0])

    async def execute_many(self, commands: Sequence[tuple[Word, ...]]) -> list[Reply | CommandFailed]:
        """The replies of `commands`, in order, in one round trip; not a transaction.

        A command that the store refuses yields its `CommandFailed` and harms no other.
        Raises `StoreUnavailable`.
        """
        replies = await self._bounded(self._round_trip(commands))
        return [_as_ours(reply) for reply in replies]

    async def run(self, script: Script, keys: Sequence[str], args: Sequence[Word]) -> Reply:
        """The reply of one script. Raises `StoreUnavailable`, `CommandFailed`."""
        return _unwrap((await self.run_many([ScriptCall(script, keys, args)]))[0])

    async def run_many(self, calls: Sequence[ScriptCall]) -> list[Reply | CommandFailed]:
        """The replies of `calls`, in order, in one round trip, or two when the store lacks a script.

        Each script is atomic; together they are not. As `execute_many` otherwise.
        """
        replies = await self._bounded(self._run_loading(calls))
        return [_as_ours(reply) for reply in replies]

    async def answering(self) -> None:
        """Returns once the store is not known to be out."""
        await self._answering.wait()

    async def close(self) -> None:
        """Drops the connections. Calls in flight fail with `StoreUnavailable`."""
        if self._watcher is not None:
            self._watcher.cancel()
        await self._pool.aclose()

    async def _run_loading(self, calls: Sequence[ScriptCall]) -> list[Reply]:
        replies = await self._round_trip([call.by_hash() for call in calls])
        missing = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            loaded: set[str] = set()
            commands = []
            for call in (calls[index] for index in missing):
                commands.append(call.by_hash() if call.script.sha in loaded else call.by_text())
                loaded.add(call.script.sha)
            for index, reply in zip(missing, await self._round_trip(commands), strict=True):
                replies[index] = reply
        return replies

    async def _round_trip(self, commands: Sequence[tuple[Word, ...]]) -> list[Reply]:
        """The replies, errors of the server among them as values."""
        connection: _Connection = await self._pool.get_connection()
        try:
            await connection.send_packed_command([_pack(command) for command in commands])
            return [await _read(connection) for _ in commands]
        finally:
            await self._pool.release(connection)

    async def _bounded(self, round_trip: Coroutine[Any, Any, list[Reply]]) -> list[Reply]:
        loop = self._check_loop(round_trip)
        if self._fail_fast and self._health.out:
            round_trip.close()
            raise StoreOut(f"{self._place} is out")
        return await self._in_time(loop, round_trip)

    async def _in_time(
        self, loop: asyncio.AbstractEventLoop, round_trip: Coroutine[Any, Any, list[Reply]]
    ) -> list[Reply]:
        try:
            async with asyncio.timeout(None) as bound:
                patience = _Patience(loop, bound, self._timeout_s)
                try:
                    replies = await round_trip
                finally:
                    patience.cancel()
        except TimeoutError:
            raise self._unavailable(loop, f"did not answer within {self._timeout_s * 1000:.0f} ms") from None
        except _UNAVAILABLE as error:
            raise self._unavailable(loop, _told(error)) from None
        except RedisError as error:
            raise CommandFailed(_told(error)) from None
        if self._health.out and self._health.answered(loop.time()):
            self._answering.set()
            _log.warning("store_back: %s answers again", self._place)
        return replies

    def _unavailable(self, loop: asyncio.AbstractEventLoop, why: str) -> StoreUnavailable:
        if self._health.failed(loop.time()):
            self._answering.clear()
            _log.warning("store_out: %s: %s", self._place, why)
            if self._watcher is None or self._watcher.done():
                self._watcher = loop.create_task(self._watch(loop))
        return StoreUnavailable(f"{self._place}: {why}")

    async def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Asks until the store answers."""
        while self._health.out:
            await asyncio.sleep(self._health.next_wait())
            with suppress(StoreUnavailable, CommandFailed):
                await self._in_time(loop, self._ask_afresh())

    async def _ask_afresh(self) -> list[Reply]:
        # What idles was connected before: it may lead nowhere any more, and each would cost a time-out.
        await self._pool.disconnect(inuse_connections=False)
        return await self._round_trip([("PING",)])

    def _check_loop(self, round_trip: Coroutine[Any, Any, list[Reply]]) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            round_trip.close()
            raise RuntimeError(f"{self!r} belongs to another event loop: connect one store for each loop")
        return loop


class _Patience:
    """Ends a wait after a time that the event loop was there to hear the store.

    The time is counted in steps. A turn of the loop that took longer than a step counts as one: the store
    is not blamed for a burst of requests that kept our own loop from reading its replies.
    """

    __slots__ = ("_bound", "_loop", "_step_s", "_steps", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, bound: asyncio.Timeout, timeout_s: float) -> None:
        self._loop = loop
        self._bound = bound
        self._steps = PATIENCE_STEPS
        self._step_s = timeout_s / PATIENCE_STEPS
        self._timer = loop.call_later(self._step_s, self._tick)

    def cancel(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        self._steps -= 1
        if self._steps:
            self._timer = self._loop.call_later(self._step_s, self._tick)
        else:
            self._bound.reschedule(self._loop.time())


async def _read(connection: _Connection) -> Reply:
    """A reply, or the server's refusal as a value, so that the replies behind it are read too."""
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _as_ours(reply: Reply) -> Reply:
    if isinstance(reply, _UNAVAILABLE):
        raise StoreUnavailable(_told(reply))
    return CommandFailed(_told(reply)) if isinstance(reply, ResponseError) else reply


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _unwrap(reply: Reply) -> Reply:
    if isinstance(reply, CommandFailed):
        raise reply
    return reply
