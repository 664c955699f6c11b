from __future__ import annotations

from typing import Any

import pytest
from ray.serve.exceptions import RayServeException

from serve_apps.accounting.book import UsageAnswer, UsageBook, UsageUnavailable
from serve_apps.accounting.queries import TooMuch, UsagePage, UsageQuery
from serve_apps.accounting.remote import HandleBook, reply_of

ANSWER = UsageAnswer(page=UsagePage(rows=[], more=False), folded_until=1.5)
QUERY = UsageQuery(start=0, end=3600, group_by=["key"], where={"tag.a": "b"})


class Book:
    def __init__(self, answer: UsageAnswer | Exception) -> None:
        self.answer = answer

    async def ask(self, query: UsageQuery) -> UsageAnswer:
        assert query == QUERY
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Handle:
    """As Serve's, over a book in this process."""

    def __init__(self, book: UsageBook | None) -> None:
        self.book = book

    def options(self, method_name: str) -> Handle:
        assert method_name == "ask"
        return self

    async def remote(self, payload: bytes) -> Any:
        if self.book is None:
            raise RayServeException("gone")
        return await reply_of(self.book, payload)


async def test_answers_cross() -> None:
    assert await HandleBook(Handle(Book(ANSWER))).ask(QUERY) == ANSWER


@pytest.mark.parametrize("error", [TooMuch(), UsageUnavailable("OperationalError")])
async def test_errors_cross(error: Exception) -> None:
    with pytest.raises(type(error)):
        await HandleBook(Handle(Book(error))).ask(QUERY)


async def test_a_lost_accountant_is_told() -> None:
    with pytest.raises(UsageUnavailable, match="RayServeException"):
        await HandleBook(Handle(None)).ask(QUERY)
