"""Nodes inside nodes, through the whole compiler."""

from runtime.compiler.compile import compile_pipeline
from runtime.plan import Demand
from tests.runtime.compiler.bodies import search


def test_a_body_is_planned_like_a_plan():
    (search_step, *_) = compile_pipeline(search()).steps
    assert (search_step.backend, search_step.depends_on) == ("task", ())
    (node,) = search_step.nodes
    planned = node.bodies["body"]
    assert [(step.id, step.backend, step.pool, step.depends_on) for step in planned.steps] == [
        ("ask", "inline", None, ()),
        ("each", "pool", "small", ("ask",)),
    ]
    assert node.ports() == ("text",)


def test_bounds_and_demand_multiply_through_bodies():
    plan = compile_pipeline(search())
    assert plan.token_bound == 101 * (1024 + 8)
    assert plan.demand == {"small": Demand(9, 9 * 512, 9 * 4)}
