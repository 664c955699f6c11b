"""What nodes are called that were recorded: by the name they were given, or by one that is found."""

from graphs.builder import Builder
from graphs.nodes.prompt import Prompt
from graphs.nodes.value import Value


def test_nodes_that_nobody_named_are_called_by_their_kind_and_numbered():
    b = Builder("demo")
    for number in (1, 2):
        b.scope.record(Value(), {"value": number})
    b.output("o", b.scope.record(Value(), {"value": 3}).named("c"))
    assert list(b.build().nodes) == ["value", "value2", "c"]


def test_a_name_that_was_taken_back_is_free_again():
    b = Builder("demo")
    b.add("a", Value(), value=1).named("b")
    b.add("a", Value(), value=2)
    b.output("o", b.value("c", 3))
    assert list(b.build().nodes) == ["b", "a", "c"]


def test_names_that_are_found_pass_over_those_that_were_given():
    b = Builder("demo")
    taken = b.add("prompt3", Prompt(template="{{ x }}"), x=1)
    for _ in range(3):
        taken = b.scope.record(Prompt(template="{{ x }}"), {"x": taken})
    b.output("o", taken["text"])
    assert list(b.build().nodes) == ["prompt3", "prompt", "prompt2", "prompt4"]
