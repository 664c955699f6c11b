"""Functions that tests name in pipelines, and some that cannot be named."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from cluster.errors import ModelUnavailable
from graphs.documents import Document
from graphs.functions import NO_KEY, IdempotencyKey, function

THREADS: list[threading.Thread] = []
"""In which `where` and `where_cheap` ran."""
LET_GO = threading.Event()
"""Ends `held` and `held_together`."""
BATCHES: list[list[Any]] = []
"""What functions that take batches were called with."""
GIVEN_UP: list[list[str]] = []
"""Batches of `forever` that were cancelled."""


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Split(NamedTuple):
    head: str
    rest: list[str]


class Found(TypedDict):
    text: str
    score: NotRequired[float]


@function(effects="pure")
def shout(text: Annotated[str, Meta(description="what to say")], times: int = 1) -> str:
    return text.upper() + "!" * times


@function
async def later(text: str) -> str:
    await asyncio.sleep(0)
    return text[::-1]


@function(effects="idempotent", cheap=True)
def where_cheap() -> None:
    THREADS.append(threading.current_thread())


@function
def where() -> None:
    THREADS.append(threading.current_thread())


@function
def held(text: str) -> str:
    """Blocks its thread."""
    LET_GO.wait(60)
    return text


@function
def split(text: str) -> Split:
    head, *rest = text.split()
    return Split(head, rest)


@function
def found(text: str | None = None) -> Found:
    return {"text": text or "nothing"}


@function
def titles(documents: list[Document]) -> list[Document]:
    return [Document(each.id, each.text.title()) for each in documents]


@function
def move(point: Point, by: dict[str, Any]) -> Point:
    return Point(point.x + by["x"], point.y + by.get("y", 0))


@function
def keys(item: dict[str, Any]) -> list[str]:
    return sorted(item)


@function
def give(what: Any) -> Any:
    odd = {
        "set": {1},
        "big": 2**70,
        "lone": "\ud800",
        "document": [Document("1", "a", score=0.5)],
        "points": {"all": (Point(1), Point(2, 3))},
    }
    return odd[what] if isinstance(what, str) else what


@function
def wrong() -> int:
    return "seven"  # type: ignore[return-value]


@function
def wrong_fields() -> Found:
    return {"score": 0.5}  # type: ignore[typeddict-item]


@function
def no_fields() -> Split:
    return "a b"  # type: ignore[return-value]


@function
def fail(how: str) -> str:
    raise {
        "value": ValueError("no such\nthing"),
        "long": KeyError("x" * 1000),
        "exit": SystemExit(3),
        "stop": StopIteration(),
        "busy": ModelUnavailable("later"),
    }[how]


@function
async def fail_later(how: str) -> str:
    return fail(how)


def unmarked(text: str) -> str:
    return text


@function
def unhinted(text) -> str:
    return str(text)


@function
def no_return(text: str):
    return text


@function
def many(*texts: str) -> str:
    return "".join(texts)


@function
def bytes_in(data: bytes) -> str:
    return data.decode()


@function
def set_out() -> set[str]:
    return set()


@function
def unknown_hint(text: Nowhere) -> str:  # type: ignore[name-defined]  # noqa: F821
    return str(text)


@function
def bad_default(count: int = "many") -> int:  # type: ignore[assignment]
    return count


@function
def two_records(item: dict[str, Any] | Document) -> str:
    return str(item)


@function
def yields() -> Any:
    yield 1


NOT_CALLED = 1


@function(effects="pure", num_cpus=0.1)
def words(text: str) -> list[str]:
    return text.split()


@function(effects="pure", num_cpus=0.1)
def longest(words: list[str], least: int = 0) -> str:
    if not words:
        raise ValueError("no words")
    return max(words, key=len) if len(words) >= least else ""


@function(effects="idempotent", num_cpus=0.1)
def process(seen: str = "") -> int:
    return os.getpid() + 0 * len(seen)


@function(num_cpus=0.1)
def post(text: str) -> str:
    return f"posted {text}"


@function(num_cpus=0.1)
async def awaits_in_a_process(text: str) -> str:
    return text


@function
def charge(amount: int, key: IdempotencyKey = NO_KEY) -> str:
    return f"{amount} {key}"


@function
async def charge_later(amount: int, key: IdempotencyKey = NO_KEY) -> str:
    return f"{amount} {key}"


@function(effects="pure")
def keyed_for_nothing(text: str, key: IdempotencyKey = NO_KEY) -> str:
    return text + key


@function(effects="pure")
def count_up(to: int) -> Iterator[int]:
    yield from range(to)


@function(effects="pure", cheap=True)
def letters(text: str) -> Iterator[str]:
    yield from text


@function(effects="pure")
async def doubled(numbers: AsyncIterator[int], most: int = 1_000) -> AsyncIterator[int]:
    done = 0
    async for number in numbers:
        if done == most:
            return
        yield 2 * number
        done += 1


@function(effects="pure")
async def added(numbers: AsyncIterator[int]) -> int:
    return sum([number async for number in numbers])


@function(effects="pure")
async def first_of(texts: AsyncIterator[str]) -> str:
    async for text in texts:
        return text
    return ""


@function(effects="pure")
def breaks(at: int) -> Iterator[int]:
    yield from range(at)
    raise ValueError("broken")


@function(effects="pure")
def yields_texts() -> Iterator[int]:
    yield "a"  # type: ignore[misc]


@function
def endless() -> Iterator[int]:
    while True:
        yield 1


@function
def reads_without_waiting(texts: AsyncIterator[str]) -> str:
    return ""


@function(num_cpus=0.1)
def yields_in_a_process(text: str) -> Iterator[str]:
    yield text


@function
async def unhinted_items(texts: AsyncIterator) -> str:  # type: ignore[type-arg]
    return ""


@function(effects="pure", batch=True)
def sizes(texts: list[str]) -> list[int | ValueError]:
    BATCHES.append(texts)
    return [len(text) if text else ValueError("nothing") for text in texts]


@function(effects="idempotent", batch=True)
def held_together(texts: list[str]) -> list[str]:
    """Blocks its thread."""
    BATCHES.append(texts)
    LET_GO.wait(60)
    return texts


@function(effects="pure", batch=True)
async def forever(texts: list[str]) -> list[str]:
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        GIVEN_UP.append(texts)
        raise
    return texts


@function(effects="pure", batch=True)
async def found_together(texts: Sequence[str], points: list[Point]) -> Sequence[Found]:
    await asyncio.sleep(0)
    return [{"text": text, "score": point.x} for text, point in zip(texts, points, strict=True)]


@function(batch=True)
def charge_together(amounts: list[int], keys: Sequence[IdempotencyKey] = ()) -> list[str]:
    return [f"{amount} {key}" for amount, key in zip(amounts, keys, strict=True)]


@function(effects="pure", batch=True)
def odd_together(hows: list[str]) -> list[int]:
    """The first says what becomes of the batch."""
    how = hows[0]
    if how == "fail":
        raise ValueError("no such thing")
    if how == "busy":
        raise ModelUnavailable("later")
    if how == "stop":
        raise StopIteration
    odd: dict[str, Any] = {
        "short": [1],
        "none": None,
        "dict": {1: 1},
        "texts": [*hows],
        "tuple": (1,) * len(hows),
    }
    return odd[how]  # type: ignore[no-any-return]


@function(batch=True)
async def cancels_itself(texts: list[str]) -> list[str]:
    raise asyncio.CancelledError


@function(batch=True)
def one_text(text: str) -> list[str]:
    return [text]


@function(batch=True)
def one_result(texts: list[str]) -> str:
    return texts[0]


@function(batch=True)
def default_in_a_batch(texts: list[str], times: list[int] = [1]) -> list[str]:  # noqa: B006
    return texts


@function(batch=True)
def nothing_in_a_batch() -> list[str]:
    return []


@function(batch=True)
def yields_batches(texts: list[str]) -> Iterator[str]:
    yield from texts


@function(batch=True)
async def batches_of_streams(texts: list[AsyncIterator[str]]) -> list[str]:
    return []
