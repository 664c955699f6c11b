"""What plans become on Ray."""

from graphs.builder import Builder
from graphs.functions import spec_of
from graphs.ports import STRING
from runtime.compiler.compile import compile_pipeline
from runtime.compiler.lowering import bound, segments
from tests.graphs.shapes import rag
from tests.runtime.compiler.bodies import search

HERE = "tests.graphs.sample_functions"


def by_node(pipeline):
    return {node: each for each in segments(compile_pipeline(pipeline)) for node in each.nodes}


def test_deployments_are_bound_to_those_that_they_call():
    assert bound(compile_pipeline(rag())) == [
        ("gateway", "runner"),
        ("runner", "pool embedder"),
        ("runner", "pool small"),
    ]


def test_models_are_called_over_handles_and_what_is_quick_stays():
    found = by_node(rag())
    assert (found["answer"].becomes, found["answer"].on) == ("Serve handle", "pool small")
    assert (found["ask"].becomes, found["ask"].on) == ("in the runner", "runner")


def test_what_is_inside_others_has_a_place_of_its_own():
    found = by_node(search())
    assert found["search"].becomes == "task of the runner"
    assert found["search"].reason == "branches: what is inside has places of its own"
    assert found["search.each"].becomes == "Serve handle"


def test_functions_in_a_row_become_one_compiled_graph():
    b = Builder("x")
    words = b.add("words", spec_of(f"{HERE}:words"), text=b.input("page", STRING))
    b.output("longest", b.add("longest", spec_of(f"{HERE}:longest"), words=words["value"])["value"])
    (segment,) = segments(compile_pipeline(b.build()))
    assert (segment.nodes, segment.becomes) == (("words", "longest"), "Ray Compiled Graph")
    assert segment.on == "2 stage actors"


def test_a_function_that_takes_batches_says_so():
    b = Builder("x")
    b.output("size", b.add("size", spec_of(f"{HERE}:sizes"), texts=b.input("page", STRING))["value"])
    (segment,) = segments(compile_pipeline(b.build()))
    assert segment.becomes == "task of the runner"
    assert segment.reason == "batches with what other runs ask of the same function"
