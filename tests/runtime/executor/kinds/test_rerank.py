"""`rerank` nodes on the fake engine, whose vectors are near each other where words are shared."""

import time

import pytest

from cluster.errors import InvalidCall
from cluster.messages import Usage
from graphs.documents import Document
from graphs.nodes.rerank import Rerank
from runtime.errors import NodeError
from runtime.executor.call import Call
from runtime.executor.kinds.kind import Resources
from runtime.executor.kinds.rerank import prepare
from runtime.executor.queue import EventQueue
from runtime.executor.run import RunScope
from tests.runtime.parts import Recorder, node_call

DOCUMENTS = [
    Document("a", "nothing of the kind", "a.md", score=0.9),
    Document("b", "red apples", "b.md", "Fruit", 7),
    Document("c", "green apples are fruit", "c.md"),
]


def a_call() -> Call:
    return node_call(RunScope("run", time.time() + 30, "acme", 100, False), EventQueue(), "rank", 7)


def reranker(pool: Recorder, **settings):
    return prepare(Rerank(model="m", **settings), Resources({"m": pool}, {}))


async def test_the_nearest_come_first_with_their_similarity():
    pool, call = Recorder(task="embed"), a_call()
    outputs = await reranker(pool, top_n=2)(call, {"query": "fruit: red apples", "documents": DOCUMENTS})
    assert outputs == {
        "documents": [
            Document("b", "red apples", "b.md", "Fruit", 7, 1.0),
            Document("c", "green apples are fruit", "c.md", score=round(2 / 12**0.5, 6)),
        ]
    }
    (request,) = pool.calls
    assert request.texts == [
        "fruit: red apples",
        "nothing of the kind",
        "Fruit\nred apples",
        "green apples are fruit",
    ]
    assert call.usage == Usage(14)


async def test_documents_of_a_caller_are_objects():
    given = [{"id": "1", "text": "two"}, {"id": "2", "text": "one", "score": 3.0}]
    outputs = await reranker(Recorder(task="embed"))(a_call(), {"query": "one", "documents": given})
    assert outputs["documents"] == [Document("2", "one", score=1.0), Document("1", "two")]


async def test_those_alike_stay_in_their_order():
    same = [Document(str(index), "one") for index in range(9)]
    outputs = await reranker(Recorder(task="embed"), top_n=9)(a_call(), {"query": "one", "documents": same})
    assert [document.id for document in outputs["documents"]] == list("012345678")


async def test_nothing_is_asked_about_no_documents():
    pool, call = Recorder(task="embed"), a_call()
    assert await reranker(pool)(call, {"query": "x", "documents": []}) == {"documents": []}
    assert pool.calls == []
    assert call.usage == Usage()


async def test_too_many_documents_are_refused_before_the_call():
    pool = Recorder(task="embed")
    with pytest.raises(NodeError, match="257 documents, rank takes at most 256") as refused:
        await reranker(pool)(a_call(), {"query": "x", "documents": [DOCUMENTS[0]] * 257})
    assert refused.value.param == "documents"
    assert pool.calls == []


async def test_too_many_tokens_are_refused_before_the_call():
    pool = Recorder(task="embed")
    perform = reranker(pool, max_prompt_tokens=13)
    with pytest.raises(
        InvalidCall, match="the query with the documents has 14 tokens, rank takes at most 13"
    ):
        await perform(a_call(), {"query": "fruit: red apples", "documents": DOCUMENTS})
    assert pool.calls == []
