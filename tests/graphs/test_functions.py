"""Which functions can be named, and what their hints say."""

import inspect
import pickle
import sys

import pytest

from graphs.functions import FunctionRefused, Mark, find, function, mark_of, signature_of, spec_of
from graphs.nodes.function import Function
from graphs.ports import (
    ANY,
    DOCUMENT,
    INTEGER,
    NULL,
    NUMBER,
    OBJECT,
    STRING,
    Port,
    list_of,
    optional,
    stream_of,
)
from tests.graphs import sample_functions as sample

HERE = "tests.graphs.sample_functions"


def refused(name: str, modules=None) -> FunctionRefused:
    with pytest.raises(FunctionRefused) as error:
        spec_of(name, modules)
    return error.value


def test_a_marked_function_is_what_it_was():
    assert sample.shout("a", 2) == "A!!"
    assert mark_of(sample.shout) == Mark("pure", cheap=False, num_cpus=None)
    assert mark_of(sample.later) == Mark("effectful", cheap=False, num_cpus=None)
    assert mark_of(sample.where_cheap) == Mark("idempotent", cheap=True, num_cpus=None)
    assert mark_of(sample.unmarked) is None

    def own(text: str) -> str:
        return text

    assert inspect.unwrap(function(effects="pure")(own)) is inspect.unwrap(function(own)) is own


def test_ports_are_the_hints():
    signature = signature_of(find(f"{HERE}:shout"))
    assert {name: port.type for name, port in signature.inputs.items()} == {"text": STRING, "times": INTEGER}
    assert signature.inputs["text"].description == "what to say"
    assert (signature.inputs["text"].required, signature.inputs["times"].default) == (True, 1)
    assert signature.outputs == {"value": STRING}


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("later", {"text": STRING}, {"value": STRING}),
        ("split", {"text": STRING}, {"head": STRING, "rest": list_of(STRING)}),
        ("found", {"text": optional(STRING)}, {"text": STRING, "score": optional(NUMBER)}),
        ("titles", {"documents": list_of(DOCUMENT)}, {"value": list_of(DOCUMENT)}),
        ("move", {"point": OBJECT, "by": OBJECT}, {"value": OBJECT}),
        ("give", {"what": ANY}, {"value": ANY}),
        ("where", {}, {"value": NULL}),
        ("sizes", {"texts": STRING}, {"value": INTEGER}),
        (
            "found_together",
            {"texts": STRING, "points": OBJECT},
            {"text": STRING, "score": optional(NUMBER)},
        ),
        ("charge_together", {"amounts": INTEGER}, {"value": STRING}),
    ],
)
def test_hints(name, inputs, outputs):
    spec = spec_of(f"{HERE}:{name}")
    assert {name: port.type for name, port in spec.inputs().items()} == inputs
    assert spec.outputs({}) == outputs


def test_the_spec_says_what_the_mark_does():
    spec = spec_of(f"{HERE}:shout")
    assert isinstance(spec, Function)
    assert (spec.call, spec.effects, spec.cheap) == (f"{HERE}:shout", "pure", False)


@pytest.mark.parametrize(
    ("name", "message", "token", "hint"),
    [
        ("shout", "named as package.module:function", "shout", None),
        ("a.b:c.d", "named as package.module:function", "a.b:c.d", None),
        ("a..b:c", "named as package.module:function", "a..b:c", None),
        ("no.such:f", "there is no module no", "no.such", "working directory"),
        ("graphs.such:f", "there is no module graphs.such", "graphs.such", "working directory"),
        (f"{HERE}:shuot", "has no function shuot", "shuot", "did you mean shout?"),
        (f"{HERE}:unmarked", "is not marked", "unmarked", "@graphs.functions.function"),
        (f"{HERE}:NOT_CALLED", "is not marked", "NOT_CALLED", "@graphs.functions.function"),
        (f"{HERE}:Point", "is not marked", "Point", "@graphs.functions.function"),
        ("os:system", "is not marked", "system", "@graphs.functions.function"),
        ("builtins:eval", "is not marked", "eval", "@graphs.functions.function"),
        ("unittest.mock:call", "is not marked", "call", "@graphs.functions.function"),
        ("tests.graphs.sample_broken:f", "cannot be imported: RuntimeError: broken", None, None),
        ("tests.graphs.sample_script:f", "cannot be imported: SystemExit: 1", None, None),
        ("tests.graphs.sample_needs:f", "cannot be imported: ModuleNotFoundError", None, None),
        (f"{HERE}:unhinted", "the input text of unhinted has no type hint", "unhinted", "as text: str"),
        (f"{HERE}:no_return", "no hint of what it returns", "no_return", "as -> str"),
        (f"{HERE}:many", "many takes *texts", "many", None),
        (f"{HERE}:bytes_in", "the input data of bytes_in: TypeError: bytes is no type", "bytes_in", None),
        (f"{HERE}:set_out", "what set_out returns: TypeError", "set_out", None),
        (f"{HERE}:unknown_hint", "hints of unknown_hint cannot be read", "unknown_hint", None),
        (f"{HERE}:bad_default", "the default of count of bad_default does not fit", "bad_default", None),
        (f"{HERE}:two_records", "the input item of two_records", "two_records", None),
        (f"{HERE}:yields", "yields yields, so it needs a hint", "yields", "as -> AsyncIterator[str]"),
        (f"{HERE}:reads_without_waiting", "it is not async", "reads_without_waiting", "take a list"),
        (f"{HERE}:yields_in_a_process", "yields, a function in a process", "yields_in_a_process", None),
        (f"{HERE}:unhinted_items", "the input texts of unhinted_items", "unhinted_items", None),
        (f"{HERE}:one_text", "its hint of text is no list of items", "one_text", "as list[str]"),
        (f"{HERE}:one_result", "its hint of return is no list of items", "one_result", "as list[str]"),
        (f"{HERE}:batches_of_streams", "its hint of texts is no list", "batches_of_streams", None),
        (f"{HERE}:default_in_a_batch", "in which times has no default", "default_in_a_batch", None),
        (f"{HERE}:nothing_in_a_batch", "takes nothing, so that it cannot", "nothing_in_a_batch", None),
        (f"{HERE}:yields_batches", "yields, so that it cannot take batches", "yields_batches", None),
    ],
)
def test_what_cannot_be_named(name, message, token, hint):
    error = refused(name)
    assert message in error.message
    assert token is None or error.token == token
    assert (hint is None) or hint in error.hint


@pytest.mark.parametrize(
    "modules", [(), ("graphs",), ("tests.graphs.sample",), ("tests.graphs.sample_functions.x",)]
)
def test_modules_that_are_not_allowed(modules):
    error = refused(f"{HERE}:shout", modules)
    assert error.message == f"functions of {HERE} may not be named here"
    assert error.hint == (f"allowed: {modules[0]}" if modules else "no functions may be named here")


@pytest.mark.parametrize("modules", [None, ("tests",), ("other", "tests.graphs"), (HERE,)])
def test_modules_that_are_allowed(modules):
    assert find(f"{HERE}:shout", modules) is inspect.unwrap(sample.shout)


def test_a_module_that_is_not_allowed_is_not_imported():
    sys.modules.pop("antigravity", None)
    refused("antigravity:fly", ("tests",))
    assert "antigravity" not in sys.modules


def test_it_survives_pickling():
    error = refused(f"{HERE}:shuot")
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.token, again.hint) == (error.message, error.token, error.hint)


def test_a_process_of_its_own_is_for_what_does_not_await_and_is_not_cheap():
    assert spec_of(f"{HERE}:words").num_cpus == 0.1
    assert spec_of(f"{HERE}:words").own_process
    assert not spec_of(f"{HERE}:shout").own_process
    assert "awaits" in refused(f"{HERE}:awaits_in_a_process").message
    with pytest.raises(ValueError, match="num_cpus"):
        function(cheap=True, num_cpus=1)
    with pytest.raises(ValueError, match="num_cpus"):
        function(num_cpus=0)


def test_a_batch_waits_in_the_runner():
    assert spec_of(f"{HERE}:sizes").batched
    assert not spec_of(f"{HERE}:shout").batched
    assert sample.sizes(["a", "bc"]) == [1, 2]
    for other in ({"cheap": True}, {"num_cpus": 1}):
        with pytest.raises(ValueError, match="batch is not for"):
            function(batch=True, **other)


def test_an_idempotency_key_is_no_input():
    assert list(spec_of("tests.graphs.sample_functions:charge").inputs()) == ["amount"]
    error = refused(f"{HERE}:keyed_for_nothing")
    assert error.message == "keyed_for_nothing cannot take the idempotency key key like this"
    assert "of a function that is effectful" in error.hint


def test_what_comes_one_by_one_is_a_list_that_is_read_while_it_is_made():
    spec = spec_of(f"{HERE}:doubled")
    numbers = stream_of(list_of(INTEGER))
    assert spec.takes == {"numbers": Port(numbers), "most": Port(INTEGER, 1_000)}
    assert spec.gives == {"value": numbers}
    assert spec_of(f"{HERE}:count_up").gives == {"value": numbers}
    assert spec_of(f"{HERE}:added").gives == {"value": INTEGER}
