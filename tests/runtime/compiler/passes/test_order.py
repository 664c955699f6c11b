"""Stage 7: the critical path goes first."""

from hypothesis import given

from cluster.interface import ModelInfo
from runtime.compiler.catalog import Catalog
from runtime.compiler.compile import compile_pipeline, compile_until
from runtime.compiler.estimates import seconds
from tests.graphs.shapes import pipelines, rag, uneven


def test_the_critical_path_keeps_the_priority_of_the_run():
    draft = compile_until("order", rag())
    assert {node.priority for node in draft.nodes.values()} == {0}


def test_slack_is_priority():
    draft = compile_until("order", uneven())
    slow, fast, after = (draft.nodes[name] for name in ("slow", "fast", "then_fast"))
    assert fast.remaining_s == fast.seconds + after.seconds
    whole = max(slow.remaining_s, fast.remaining_s)
    assert slow.priority == round((whole - slow.remaining_s) * 10)
    assert fast.priority == after.priority == round((whole - fast.remaining_s) * 10)
    assert {0} < {slow.priority, fast.priority}
    assert next(iter(draft.nodes)) == ("slow" if slow.priority == 0 else "fast")


def test_what_was_measured_takes_the_place_of_estimates():
    """slow is estimated to be the long way; in earlier runs it was not."""
    timings = {"slow": 0.1, "fast": 2.0, "then_fast": 1.0}
    pipeline = uneven()
    models = {name: ModelInfo(name, "generate", 8192, 64) for name in ("small", "large")}
    catalog = Catalog(models, {}, timings={pipeline.metadata.name: timings})
    draft = compile_until("order", pipeline, catalog)
    assert {name: draft.nodes[name].seconds for name in timings} == timings
    assert (draft.nodes["fast"].priority, draft.nodes["slow"].priority) == (0, 29)
    assert "can wait 2.9 s; took 0.10 s" in {change.reason for change in draft.changes}
    assert compile_pipeline(pipeline, catalog).hash == compile_pipeline(pipeline).hash


@given(pipelines())
def test_remaining_time_is_the_longest_path(pipeline):
    draft = compile_until("order", pipeline)
    assert not draft.nodes or min(node.priority for node in draft.nodes.values()) == 0
    for name, node in draft.nodes.items():
        after = [draft.nodes[consumer].remaining_s for consumer in draft.graph.successors(name)]
        assert node.remaining_s == seconds(node, {}) + max(after, default=0.0)
