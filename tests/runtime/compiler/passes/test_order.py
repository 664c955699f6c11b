"""Stage 7: the critical path goes first."""

from hypothesis import given

from runtime.compiler.compile import compile_until
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


@given(pipelines())
def test_remaining_time_is_the_longest_path(pipeline):
    draft = compile_until("order", pipeline)
    assert not draft.nodes or min(node.priority for node in draft.nodes.values()) == 0
    for name, node in draft.nodes.items():
        after = [draft.nodes[consumer].remaining_s for consumer in draft.graph.successors(name)]
        assert node.remaining_s == seconds(node, {}) + max(after, default=0.0)
