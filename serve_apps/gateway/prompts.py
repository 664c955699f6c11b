"""Several prompts of one call for completions: made at once, and told as one reply.

prompts [a, b], n 2  ─►  call of a, choices 0 and 1
                         call of b, choices 2 and 3    ─►  one reply of four choices, usage summed
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import msgspec

from cluster.errors import EngineFailed
from cluster.interface import Batch, Pool
from cluster.messages import Generate, Usage


def calls_of(call: Generate, prompts: Sequence[str]) -> list[Generate]:
    """A call for each prompt. Engines know calls by their ids: each has one of its own."""
    ids = [call.request_id, *(f"{call.request_id}-{number}" for number in range(1, len(prompts)))]
    return [
        msgspec.structs.replace(call, request_id=call_id, prompt=prompt)
        for call_id, prompt in zip(ids, prompts, strict=True)
    ]


async def together(pool: Pool, calls: Sequence[Generate]) -> AsyncGenerator[Batch, None]:
    """The replies of the calls as one. Raises what the first of them to fail raises.

    That ends the others, and so does closing the iterator.
    """
    replies = [pool.generate(call) for call in calls]
    choices = calls[0].sampling.n
    used: dict[int, Usage] = {}
    coming = {asyncio.create_task(_next(reply)): number for number, reply in enumerate(replies)}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                number = coming.pop(task)
                batch = task.result()
                if batch is None:
                    continue
                if told := _numbered(batch, number, choices, used):
                    yield told
                coming[asyncio.create_task(_next(replies[number]))] = number
        if len(used) < len(calls):
            raise EngineFailed("a reply ended before it was complete")
        yield [sum(used.values(), Usage())]
    finally:
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        for reply in replies:
            await reply.aclose()


async def _next(reply: AsyncGenerator[Batch, None]) -> Batch | None:
    return await anext(reply, None)


def _numbered(batch: Batch, number: int, choices: int, used: dict[int, Usage]) -> Batch:
    """Its events as those of the whole reply. Usage is put aside: it comes last, and once."""
    told: Batch = []
    for event in batch:
        if isinstance(event, Usage):
            used[number] = event
        else:
            told.append(msgspec.structs.replace(event, index=number * choices + event.index))
    return told
