"""Choices by a model that generates and by one that embeds, on the fake engine."""

import time

import pytest

from cluster.engines.fake import FakeScript, Rule
from cluster.errors import EngineFailed, InvalidCall, Overloaded
from cluster.messages import Failure, Usage
from runtime.executor.call import Call
from runtime.executor.kinds.choose import Choice, chooser
from runtime.executor.queue import EventQueue
from runtime.executor.run import RunScope
from tests.runtime.parts import Recorder, node_call

CHOICES = {"refund": "money back please", "delivery": "the parcel is late", "very odd": "something else"}


def a_call() -> Call:
    return node_call(RunScope("run", time.time() + 30, "acme", 100, True), EventQueue(), "choice", 7)


def asked(reply: str | None = None, **rule) -> Recorder:
    rules = [Rule(contains="", reply=reply, **rule)] if reply is not None or rule else []
    return Recorder(FakeScript(rules=rules))


class TestOfAModelThatGenerates:
    async def test_what_is_asked(self):
        pool, call = asked(), a_call()
        assert await chooser(pool, CHOICES, 100)(call, "Where is it?") == Choice("refund", None)
        (request,) = pool.calls
        assert [message.role for message in request.messages] == ["system", "user"]
        assert "- delivery: the parcel is late\n" in request.messages[0].content
        assert request.messages[1].content == "Where is it?"
        assert (request.sampling.temperature, request.stream, request.max_tokens) == (0.0, False, 34)
        assert (request.tenant, request.priority, request.request_id) == ("acme", 107, "run.choice")
        schema = request.sampling.response_format["json_schema"]["schema"]
        assert schema["properties"]["choice"]["enum"] == list(CHOICES)
        assert call.usage == Usage(pool.count_tokens(request), 2)

    @pytest.mark.parametrize(
        ("reply", "name"),
        [
            ('{"choice": "delivery"}', "delivery"),
            ('{\n "choice" : "very odd"}', "very odd"),
            ('{"choice": "Delivery"}', "delivery"),
            ("delivery", "delivery"),
            ("That would be: DELIVERY.", "delivery"),
            ('{"choice": "refu', None),
            ("refund or delivery", None),
            ("refunds", None),
            ("", None),
        ],
    )
    async def test_what_is_made_of_the_reply(self, reply, name):
        choose = chooser(asked(reply), CHOICES, 100)
        if name is not None:
            assert await choose(a_call(), "x") == Choice(name, None)
            return
        with pytest.raises(EngineFailed, match="none of the names"):
            await choose(a_call(), "x")

    async def test_a_text_over_its_bound_is_refused_before_the_call(self):
        pool = asked()
        with pytest.raises(InvalidCall, match="choice takes at most 5") as refused:
            await chooser(pool, CHOICES, 5)(a_call(), "x")
        assert refused.value.param == "choice"
        assert pool.calls == []

    async def test_a_call_that_is_refused_owes_nothing(self):
        call = a_call()
        with pytest.raises(Overloaded):
            await chooser(asked(failure=Failure("Overloaded", "full")), CHOICES, 100)(call, "x")
        assert call.usage == Usage()


class TestOfAModelThatEmbeds:
    async def test_the_nearest_description_is_taken(self):
        pool = Recorder(task="embed")
        choose = chooser(pool, CHOICES, 20)
        name, confidence = await choose(a_call(), "my parcel is very late")
        assert name == "delivery"
        assert confidence == pytest.approx(3 / 20**0.5, abs=1e-6)
        assert await choose(a_call(), "the parcel is late") == Choice("delivery", 1.0)

    async def test_descriptions_are_embedded_once(self):
        pool = Recorder(task="embed")
        choose = chooser(pool, CHOICES, 20)
        usages = []
        for text in ("money back", "something else"):
            call = a_call()
            await choose(call, text)
            usages.append(call.usage)
        assert [call.texts for call in pool.calls] == [["money back", *CHOICES.values()], ["something else"]]
        assert usages == [Usage(11), Usage(2)]

    async def test_the_bound_is_the_same_before_and_after_they_are_known(self):
        pool = Recorder(task="embed")
        choose = chooser(pool, CHOICES, 11)
        for _ in range(2):
            with pytest.raises(InvalidCall, match="12 tokens, choice takes at most 11"):
                await choose(a_call(), "one two three")
            await choose(a_call(), "one two")
        assert len(pool.calls) == 2
