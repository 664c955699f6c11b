"""Plans made ready: slots, readers, order."""

import pytest

from runtime.compiler.compile import compile_pipeline
from runtime.executor.kinds.kind import Resources
from runtime.executor.prepare import prepare
from tests.graphs.shapes import diamond, inline_chain, rag, uneven
from tests.runtime.parts import Shelf, pools

RESOURCES = Resources(pools(), {"manual": Shelf()})


def test_every_value_that_is_needed_has_a_slot():
    prepared = prepare(compile_pipeline(rag()), RESOURCES)
    # question, top_k, sessionHistory, embedding, documents, ask's text, answer's text
    assert len(prepared.readers) == 7
    assert {str(ref) for ref, _ in prepared.given} == {
        "${inputs.question}",
        "${inputs.top_k}",
        "${context.sessionHistory}",
    }
    # documents: read by ask, and an output
    documents = next(
        slot
        for step in prepared.steps
        for node in step.nodes
        for port, slot in node.outputs
        if port == "documents"
    )
    assert prepared.readers[documents] == 2


def test_a_fused_chain_is_one_step():
    prepared = prepare(compile_pipeline(inline_chain(5)), RESOURCES)
    assert [len(step.nodes) for step in prepared.steps] == [5]
    assert prepared.steps[0].inline


def test_steps_count_what_they_wait_for():
    prepared = prepare(compile_pipeline(diamond()), RESOURCES)
    assert [step.waits_for for step in prepared.steps] == [0, 0, 2]
    assert [step.successors for step in prepared.steps] == [(2,), (2,), ()]


def test_the_most_urgent_root_is_taken_first():
    plan = compile_pipeline(uneven())
    prepared = prepare(plan, RESOURCES)
    assert prepared.roots[-1] == 0
    assert plan.steps[0].priority == 0


@pytest.mark.parametrize("missing", ["small", "embedder", "manual"])
def test_what_is_not_there_is_named(missing):
    models = {name: pool for name, pool in pools().items() if name != missing}
    indexes = {} if missing == "manual" else {"manual": Shelf()}
    with pytest.raises(KeyError, match=missing):
        prepare(compile_pipeline(rag()), Resources(models, indexes))
