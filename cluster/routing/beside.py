"""What goes beside the bytes of a call: what its router reads, in the process of the caller.

    HandlePool ──(payload, Beside)──► PoolRouter ──(payload, None)──► replica

Calls cross as bytes, and a router does not decode whole prompts. It runs in the process that has the call
before it, though, perhaps on another event loop. So the call itself goes beside its bytes, as an object that
pickles to nothing, and what is needed of it is only worked out where there is a choice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.messages import Embed, Generate
from cluster.routing.facts import Booking, CallFacts
from cluster.routing.prefixes import ENDS, cut

CHARS_PER_TOKEN = 4.0
"""Where nobody has counted."""


class Beside:
    """One attempt to have a call answered: its caller ends it, however it ends."""

    __slots__ = ("_booking", "_call", "_ended", "_facts", "_loop", "_lost")

    def __init__(self, call: Generate | Embed) -> None:
        self._call = call
        self._facts: CallFacts | None = None
        self._booking: Booking | None = None
        self._lost: Callable[[Booking], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False

    def __reduce__(self) -> tuple[object, ...]:
        return _nothing, ()

    def facts(self) -> CallFacts:
        """Worked out once."""
        if self._facts is None:
            call = self._call
            self._facts = _of_text(call) if isinstance(call, Generate) else _of_texts(call)
        return self._facts

    @property
    def booking(self) -> Booking | None:
        """Of the replica that it is meant for."""
        return self._booking

    def booked(self, booking: Booking, lost: Callable[[Booking], None]) -> None:
        """The call is meant for a replica, in place of the one before. Said by the router, on its loop.
        `lost` is called when that replica dies over it."""
        if self._booking is not None:
            self._booking.end()
        self._booking, self._lost = booking, lost
        self._loop = asyncio.get_running_loop()
        if self._ended:
            booking.end()

    def answering(self) -> None:
        """The first of the answer is there."""
        if self._booking is not None:
            self._on_its_loop(self._booking.answering)

    def lost(self) -> None:
        """The replica died over the call."""
        if self._booking is not None and self._lost is not None:
            booking, lost = self._booking, self._lost
            self._on_its_loop(lambda: lost(booking))

    def end(self) -> None:
        """Nobody waits for it any more."""
        self._ended = True
        if self._booking is not None:
            self._on_its_loop(self._booking.end)

    def _on_its_loop(self, action: Callable[[], None]) -> None:
        """The bookings of a router are one loop's."""
        assert self._loop is not None
        if self._loop is asyncio.get_running_loop():
            action()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action)


def _nothing() -> None:
    """What a replica is given in the place of a `Beside`."""


def _of_text(call: Generate) -> CallFacts:
    prompt = cut(call)
    tokens = call.prompt_tokens or round(prompt.chars / CHARS_PER_TOKEN)
    return CallFacts(
        prompt_tokens=tokens,
        output_tokens=(call.expected_tokens or call.max_tokens) * call.sampling.n,
        blocks=prompt.blocks,
        ends=ENDS,
        tokens_per_unit=tokens / max(1, prompt.chars),
        session=f"{call.tenant}\0{call.session}" if call.session else "",
    )


def _of_texts(call: Embed) -> CallFacts:
    return CallFacts(round(sum(map(len, call.texts)) / CHARS_PER_TOKEN), 0)
