"""One replica: the admission queue of `cluster.admission`, and an engine of steps with a prefix cache.

A step makes one token for every call that has read its prompt, and reads prompts as far as the step has room:

    seconds of a step = BASE + PER_SEQUENCE · calls that write + PER_PROMPT_TOKEN · tokens read

Steps in which nothing is read are all alike, and are taken together until a call ends or comes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

from benchmarks.simulate.trace import BLOCK, SimulatedCall
from cluster.admission.queue import AdmissionQueue, Ask, Capacity, Ticket


class Speeds(NamedTuple):
    """Of an engine. By default SmolLM2-135M in float32 on two cores with vLLM, as measured in
    docs/decisions/0013: one stream 19.1 tokens a second, eight 113, and a prompt of 300 words in 0.35 s."""

    base_s: float = 0.0497
    per_sequence_s: float = 0.00264
    per_prompt_token_s: float = 0.00075
    step_tokens: int = 512
    sequences: int = 32
    kv_tokens: int = 23_300
    """A GiB of 30 layers, 3 heads of 64 values, keys and values of 4 bytes."""


class Done(NamedTuple):
    """What became of a call."""

    call: SimulatedCall
    replica: int
    first_at: float
    """Seconds: when its first token was there."""
    end_at: float
    cached_tokens: int


class Inside:
    """A call in the replica."""

    __slots__ = ("cached", "call", "first_at", "left", "number", "to_read")

    def __init__(self, call: SimulatedCall, number: int) -> None:
        self.call = call
        self.number = number
        """Of the call in its trace."""
        self.to_read = call.prompt_tokens
        self.cached = 0
        self.left = call.output_tokens
        self.first_at = 0.0


class SimulatedReplica:
    """Steps run from `began` to `until`; the world asks for `finish` then."""

    def __init__(self, number: int, speeds: Speeds, patience_s: float = 1e6) -> None:
        self.number = number
        self.speeds = speeds
        self.queue = AdmissionQueue(
            Capacity(speeds.sequences, speeds.kv_tokens, 2 * speeds.step_tokens, waiting=1_000_000)
        )
        self._patience_s = patience_s
        self._reading: list[tuple[Inside, Ticket]] = []
        self._writing: list[tuple[Inside, Ticket]] = []
        self._cache: OrderedDict[int, None] = OrderedDict()
        self.began = 0.0
        self.until = math.inf
        """When the steps that run now end."""
        self._step_s = 0.0
        self._steps = 0
        self._chunks: list[tuple[Inside, int]] = []
        self.calls = self._waiting = self._coming = 0
        """In the engine and before it: calls, tokens of prompts that are not read, and of outputs."""
        self.service_gap = 0.0
        """The most that of two tenants that waited one had been served more than the other: by theorem 4.4
        of the virtual token counters at most that of the largest prompt, or of all outputs that have room."""

    def offer(self, call: SimulatedCall, number: int, now: float) -> None:
        """A call comes. Steps that run are cut at the end of the one that is at work."""
        ask = Ask(now + self._patience_s, call.tenant, call.prompt_tokens, call.output_tokens)
        self.queue.offer(ask, now).owner = Inside(call, number)
        self.calls += 1
        self._waiting += call.prompt_tokens
        self._coming += call.output_tokens
        if self.until == math.inf:
            self._begin(now)
        elif self._steps > 1:
            self._steps = min(self._steps, max(1, math.ceil((now - self.began) / self._step_s)))
            self.until = self.began + self._steps * self._step_s

    def work(self) -> tuple[int, int]:
        """Tokens of prompts that are not read, and of answers that are to come."""
        return self._waiting, self._coming

    def finish(self) -> tuple[list[Inside], list[tuple[Inside, Done]]]:
        """The steps are over: the calls that have begun to answer, and those that are done."""
        now, begun, ended = self.until, list[Inside](), list[tuple[Inside, Done]]()
        writing = []
        for inside, ticket in self._writing:
            inside.left -= self._steps
            self.queue.observe(ticket, inside.call.output_tokens - inside.left, now)
            if inside.left:
                writing.append((inside, ticket))
            else:
                ended.append((inside, self._end(inside, ticket, now)))
        for inside, tokens in self._chunks:
            inside.to_read -= tokens
        reading = []
        for inside, ticket in self._reading:
            if inside.to_read:
                reading.append((inside, ticket))
                continue
            inside.first_at = now
            self._waiting -= inside.call.prompt_tokens
            inside.left -= 1
            begun.append(inside)
            self.queue.observe(ticket, 1, now)
            if inside.left:
                writing.append((inside, ticket))
            else:
                ended.append((inside, self._end(inside, ticket, now)))
        self._reading, self._writing = reading, writing
        self._begin(now)
        return begun, ended

    def _begin(self, now: float) -> None:
        """The next steps, if there is anything to do."""
        for ticket in self.queue.admit(now):
            self._enter(ticket)
        if self.queue.waiting > 1:
            served = [each.service for each in self.queue.state(now).tenants]
            self.service_gap = max(self.service_gap, max(served) - min(served))
        speeds, room = self.speeds, self.speeds.step_tokens - len(self._writing)
        self._chunks = []
        for inside, _ in self._reading:
            tokens = min(inside.to_read, room)
            if tokens <= 0:
                break
            self._chunks.append((inside, tokens))
            room -= tokens
        read = sum(tokens for _, tokens in self._chunks)
        if not read and not self._writing:
            self.until = math.inf
            return
        self._step_s = (
            speeds.base_s + speeds.per_sequence_s * len(self._writing) + speeds.per_prompt_token_s * read
        )
        self._steps = 1 if read else min(inside.left for inside, _ in self._writing)
        self.began = now
        self.until = now + self._steps * self._step_s

    def _enter(self, ticket: Ticket) -> None:
        """Into the engine: what its cache has need not be read; the last block always is."""
        inside: Inside = ticket.owner
        blocks = inside.call.blocks
        for block in blocks[:-1]:
            if block not in self._cache:
                break
            inside.cached += BLOCK
        inside.to_read -= inside.cached
        for block in reversed(blocks):
            self._cache[block] = None
            self._cache.move_to_end(block)
        while len(self._cache) * BLOCK > self.speeds.kv_tokens:
            self._cache.popitem(last=False)
        self._reading.append((inside, ticket))

    def _end(self, inside: Inside, ticket: Ticket, now: float) -> Done:
        self.queue.end(ticket, now)
        self.calls -= 1
        self._coming -= inside.call.output_tokens
        return Done(inside.call, self.number, inside.first_at, now, inside.cached)
