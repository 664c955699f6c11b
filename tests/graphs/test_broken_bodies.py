"""Every kind of mistake that nodes inside nodes can have, and where it is found."""

import time

import pytest
from msgspec.structs import replace

from graphs.bindings import Literal, Ref
from graphs.checks.limits import MAX_FAN_OUT
from graphs.loader import load
from graphs.nodes.agent import Agent, AgentTool
from graphs.nodes.map import Map
from graphs.nodes.router import Router
from graphs.nodes.value import Value
from graphs.pipeline import MAX_BODY_DEPTH, Body, Metadata, Node, NodeId, Pipeline
from graphs.validation import check
from tests.graphs.broken import ANSWER, HEAD, TAIL, assert_mistake, problems_of, the_error, with_node

BROKEN = {
    "map without a list": ('{map: {}, value: "${item}"}', "missing-input", 3, None),
    "map over something else": ('{map: {over: "${inputs.n}"}, value: "${item}"}', "type-mismatch", 19, None),
    "map of nothing": ('{map: {over: "${l}"}}', "missing", 7, "write nodes and outputs, or one node"),
    "map with a node beside and inside": (
        '{map: {over: "${l}", nodes: {b: {value: 1}}}, value: 1}',
        "unknown-field",
        27,
        None,
    ),
    "map with two nodes beside": (
        '{map: {over: "${l}"}, value: 1, prompt: {template: a}}',
        "bad-value",
        3,
        None,
    ),
    "map that is given": (
        '{map: {over: "${l}", nodes: {b: {value: 1}}, outputs: {b: "${b}"}}, with: {x: 1}}',
        "unknown-field",
        74,
        "what it runs over is map.over; nodes inside refer to what is around them",
    ),
    "map that gives nothing": (
        '{map: {over: "${l}", nodes: {b: {value: 1}}}}',
        "no-outputs",
        7,
        "write outputs: {name: ${node.port}}",
    ),
    "reduce of an unknown output": (
        '{map: {over: "${l}", reduce: {txt: join}}, prompt: {template: a}}',
        "unknown-output",
        36,
        "did you mean text?",
    ),
    "reduce of another type": (
        '{map: {over: "${l}", reduce: {text: sum}}, prompt: {template: a}}',
        "type-mismatch",
        42,
        None,
    ),
    "unknown reducer": ('{map: {over: "${l}", reduce: {value: avg}}, value: 1}', "bad-value", 35, None),
    "item that hides another name": (
        '{map: {over: "${l}", as: answer}, value: 1}',
        "shadowed",
        27,
        "give it another name with as",
    ),
    "item with a name that is none": ('{map: {over: "${l}", as: "a b"}, value: 1}', "bad-name", 31, None),
    "map inside a map with the same item": (
        '{map: {over: "${l}", nodes: {b: {map: {over: "${l}"}, value: 1}}, outputs: {b: "${b.value}"}}}',
        "shadowed",
        39,
        "give it another name with as",
    ),
    "node inside that hides one around": (
        '{map: {over: "${l}", nodes: {l: {value: 1}}, outputs: {v: "${l}"}}}',
        "shadowed",
        35,
        "names inside a node differ from all that can be seen there",
    ),
    "misspelt item": (
        '{map: {over: "${l}", as: word}, value: "${wrd}"}',
        "unknown-node",
        45,
        "did you mean word?",
    ),
    "port of an item": (
        '{map: {over: "${l}"}, value: "${item.place}"}',
        "unknown-port",
        35,
        "known: index, value",
    ),
    "cycle inside": (
        '{map: {over: "${l}", nodes: {b: {value: "${c}"}, c: {value: "${b}"}}, outputs: {b: "${b}"}}}',
        "cycle",
        35,
        None,
    ),
    "node that looks at itself from inside": ('{map: {over: "${l}"}, value: "${a.value}"}', "cycle", 3, None),
    "after of a node around": (
        '{map: {over: "${l}", nodes: {b: {value: 1, after: [l]}}, outputs: {b: "${b}"}}}',
        "unknown-node",
        57,
        "known: b",
    ),
    "output of a body that is not there": (
        '{map: {over: "${l}", nodes: {b: {value: 1}}, outputs: {b: "${b.vale}"}}}',
        "unknown-port",
        64,
        "did you mean value?",
    ),
    "output of a body with a bad name": (
        '{map: {over: "${l}", nodes: {b: {value: 1}}, outputs: {a b: "${b}"}}}',
        "bad-name",
        61,
        None,
    ),
    "branch without cases": ("{branch: []}", "missing", 15, "write - {when: …, nodes: …, outputs: …}"),
    "branch that is no list": ("{branch: {value: 1}}", "bad-value", 15, None),
    "case that is no mapping": ("{branch: [3, {value: 1}]}", "bad-value", 16, None),
    "case of nothing": ("{branch: [{when: inputs.n > 1}, {value: 1}]}", "missing", 16, None),
    "case after one that always applies": (
        "{branch: [{value: 1}, {when: inputs.n > 1, value: 2}]}",
        "unreachable-case",
        28,
        "case 1 has no condition, so it always applies: put it last",
    ),
    "cases with nothing in common": (
        "{branch: [{when: inputs.n > 1, value: 1}, {prompt: {template: a}}]}",
        "no-common-output",
        7,
        "give what is the same in all cases the same name",
    ),
    "condition of a case over what is inside": (
        '{branch: [{when: b == 1, nodes: {b: {value: 1}}, outputs: {b: "${b}"}}]}',
        "unknown-node",
        23,
        None,
    ),
    "bad condition of a case": ("{branch: [{when: inputs.n >, value: 1}]}", "bad-condition", 32, None),
    "branch that is given": ("{branch: [{value: 1}], with: {x: 1}}", "unknown-field", 29, None),
    "unknown field of a case": (
        '{branch: [{whn: inputs.n > 1, nodes: {b: {value: 1}}, outputs: {b: "${b}"}}]}',
        "unknown-field",
        17,
        "did you mean when?",
    ),
    "loop without end": (
        '{loop: {value: "${state.value}"}, with: {value: 1}}',
        "unbounded-loop",
        7,
        "write max_iterations: 4, or as many passes as it may take",
    ),
    "loop with too many passes": (
        '{loop: {max_iterations: 101, value: "${state.value}"}, with: {value: 1}}',
        "bad-value",
        30,
        None,
    ),
    "state that is not given": (
        '{loop: {max_iterations: 2, value: "${state.valu}"}, with: {value: 1}}',
        "unknown-port",
        40,
        "did you mean value?",
    ),
    "state of another type": (
        '{loop: {max_iterations: 2, value: hi}, with: {value: 1}}',
        "type-mismatch",
        7,
        None,
    ),
    "state without a point": (
        '{loop: {max_iterations: 2, nodes: {b: {value: 1.5}}, outputs: {n: "${b}"}}, with: {n: 1}}',
        "type-mismatch",
        72,
        "start with a point in the number, as n: 0.0",
    ),
    "output that the loop has": (
        '{loop: {max_iterations: 2, nodes: {b: {value: 1}}, outputs: {iterations: "${b}"}}}',
        "reserved-name",
        67,
        None,
    ),
    "state that the loop has": (
        '{loop: {max_iterations: 2, value: 1}, with: {iteration: 1}}',
        "reserved-name",
        51,
        None,
    ),
    "until over nothing that is there": (
        '{loop: {max_iterations: 2, until: c == 1, value: 1}}',
        "unknown-node",
        40,
        None,
    ),
    "until of other types": (
        '{loop: {max_iterations: 2, until: state.iteration > "x", value: 1}}',
        "bad-condition",
        40,
        None,
    ),
    "router without a model": (
        "{router: {choices: {x: {description: a, value: 1}, y: {description: b, value: 1}}},"
        " with: {text: a}}",
        "missing",
        7,
        None,
    ),
    "router with one choice": (
        '{router: {model: m, choices: {x: {description: a, value: 1}}}, with: {text: a}}',
        "bad-value",
        35,
        None,
    ),
    "choice of nothing": (
        "{router: {model: m, choices: {x: {description: a}, y: {description: b, value: 1}}},"
        " with: {text: a}}",
        "missing",
        36,
        "write nodes and outputs, or one node",
    ),
    "choice without a description": (
        '{router: {model: m, choices: {x: {value: 1}, y: {description: b, value: 1}}}, with: {text: a}}',
        "missing",
        36,
        None,
    ),
    "choice that is a text": (
        '{router: {model: m, choices: {x: hi, y: {description: b, value: 1}, z: {description: c, value: 1}}},'
        " with: {text: a}}",
        "bad-value",
        39,
        None,
    ),
    "output that the router has": (
        '{router: {model: m, choices: {x: {description: a, value: 1}, y: {description: b,'
        ' nodes: {c: {value: 1}}, outputs: {value: "${c}", choice: "${c}"}}}}, with: {text: a}}',
        "reserved-name",
        136,
        None,
    ),
    "agent without tools": ("{agent: {model: m, tools: {}}, with: {prompt: a}}", "bad-value", 32, None),
    "tool of nothing": (
        "{agent: {model: m, tools: {x: {description: a}}}, with: {prompt: a}}",
        "missing",
        33,
        "write nodes and outputs, or one node",
    ),
    "tool without a description": (
        "{agent: {model: m, tools: {x: {value: 1}}}, with: {prompt: a}}",
        "missing",
        33,
        None,
    ),
    "tool without outputs": (
        "{agent: {model: m, tools: {x: {description: a, nodes: {b: {value: 1}}}}}, with: {prompt: a}}",
        "no-outputs",
        33,
        "write outputs: {name: ${node.port}}",
    ),
    "tool with a bad name": (
        "{agent: {model: m, tools: {a b: {description: a, value: 1}}}, with: {prompt: a}}",
        "bad-name",
        33,
        "call it a-b",
    ),
    "choice with the sign of tries in its name": (
        "{router: {model: m, choices: {x~2: {description: a, value: 1}, y: {description: b, value: 2}}},"
        " with: {text: a}}",
        "bad-name",
        36,
        "call it x-2",
    ),
    "choice with a dot in its name": (
        "{router: {model: m, choices: {y: {description: a, value: 1}, a.b: {description: b, value: 2}}},"
        " with: {text: a}}",
        "bad-name",
        67,
        "call it a-b",
    ),
    "choice with a name that is taken": (
        "{router: {model: m, choices: {y: {description: a, value: 1}, inputs: {description: b, value: 2}}},"
        " with: {text: a}}",
        "bad-name",
        67,
        None,
    ),
    "tool with an unknown type": (
        "{agent: {model: m, tools: {x: {description: a, inputs: {q: strng}, value: 1}}}, with: {prompt: a}}",
        "unknown-type",
        65,
        "did you mean string?",
    ),
    "input that a tool has not": (
        '{agent: {model: m, tools: {x: {description: a, inputs: {q: string}, value: "${args.r}"}}},'
        " with: {prompt: a}}",
        "unknown-port",
        81,
        "known: q",
    ),
    "unknown graph": ("{subgraph: {graph: g}}", "unknown-graph", 25, None),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_mistake(name):
    assert_mistake(*BROKEN[name])


WARNINGS = {
    "until that looks at nothing": (
        "{loop: {max_iterations: 2, until: inputs.n > 3, value: 1}}",
        "constant-until",
    ),
    "node inside that is not needed": (
        '{map: {over: "${l}", nodes: {b: {value: 1}, c: {value: 2}}, outputs: {b: "${b}"}}}',
        "unused-node",
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_warning(name):
    node, code = WARNINGS[name]
    found = [each.code for each in load(used(node)).warnings if each.position.line == 6]
    assert found == [code]


def used(node):
    """The node with its first output an output of the pipeline."""
    port = "b" if "outputs: {b:" in node else "value"
    return with_node(node).replace("text: ${answer.text}", f"text: ${{answer.text}}\n  a: ${{a.{port}}}")


def test_mistakes_in_and_around_bodies_are_told_at_once():
    node = (
        '{branch: [{when: inputs.m > 1, map: {over: "${k}", max_item: 2}, prompt: {template: "{{ x }}"}},'
        ' {nodes: {b: {lm: {}}, c: {value: "${b.text}"}}, outputs: {text: "${d}"}}]}'
    )
    assert [(each.code, each.position.column) for each in problems_of(with_node(node))] == [
        ("unknown-input", 23),
        ("unknown-node", 49),
        ("unknown-field", 57),
        ("missing-input", 94),
        ("unknown-kind", 116),
        ("unknown-node", 167),
    ]


def nested(depth, max_items=1, level=0):
    """A map inside a map inside a map."""
    if level == depth:
        return '{value: "${inputs.question}"}'
    port = "value" if level + 1 == depth else "v"
    inner = nested(depth, max_items, level + 1)
    settings = f"over: [1], as: i{level}, max_items: {max_items}, nodes: {{b{level}: {inner}}}"
    return f'{{map: {{{settings}, outputs: {{v: "${{b{level}.{port}}}"}}}}}}'


def test_depth_is_bounded():
    assert load(HEAD + f"  a: {nested(MAX_BODY_DEPTH)}\n" + ANSWER + TAIL)
    problem = the_error(HEAD + f"  a: {nested(MAX_BODY_DEPTH + 1)}\n" + ANSWER + TAIL)
    assert (problem.code, problem.message) == ("too-large", "nodes are nested at most 8 deep")


def test_runs_of_one_node_are_bounded():
    assert load(HEAD + f"  a: {nested(2, 300)}\n" + ANSWER + TAIL)
    problem = the_error(HEAD + f"  a: {nested(3, 300)}\n" + ANSWER + TAIL)
    assert (problem.code, problem.path[-1]) == ("too-large", "b1")
    assert f"27000000 times in one run, more than {MAX_FAN_OUT}" in problem.message


def test_bodies_that_are_used_many_times_are_counted_without_looking_at_each():
    body = Body({NodeId("v"): Node(Value(), {"value": Literal(1)})}, {"v": Ref("v", "value")})
    for _ in range(MAX_BODY_DEPTH - 1):
        nodes = {
            NodeId(f"n{index}"): Node(Map(max_items=1), {"over": Literal([])}, bodies={"body": body})
            for index in range(1_000)
        }
        body = Body(nodes, {"v": Ref("n0", "v")})
    began = time.perf_counter()
    (problem,) = check(Pipeline(Metadata("x"), body.nodes, {"v": Ref("n0", "v")}))
    assert problem.code == "too-large"
    assert time.perf_counter() - began < 100


VALUE = Body({NodeId("step"): Node(Value(), {"value": Literal(1)})}, {"value": Ref("step", "value")})
ROUTER = Node(
    Router(model="m", choices={"x": "one", "y": "another"}),
    {"text": Literal("a")},
    bodies={"x": VALUE, "y": VALUE},
)
AGENT = Node(Agent(model="m", tools={"x": AgentTool("does")}), {"prompt": Literal("a")}, bodies={"x": VALUE})
MADE = {
    "choice without body": (replace(ROUTER, bodies={"x": VALUE}), "there is nothing to run for y"),
    "body without choice": (
        replace(ROUTER, bodies={"x": VALUE, "y": VALUE, "z": VALUE}),
        "nothing in the settings speaks of the body z",
    ),
    "tool without body": (replace(AGENT, bodies={}), "there is nothing to run for x"),
    "map without body": (Node(Map(), {"over": Literal([])}), "there is nothing to run for body"),
    "body of a kind without": (
        Node(Value(), {"value": Literal(1)}, bodies={"body": VALUE}),
        "nothing in the settings speaks of the body body",
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_mistake_that_cannot_be_written(name):
    node, message = MADE[name]
    other = Node(Value(), {"value": Literal(1)})
    made = Pipeline(Metadata("x"), {NodeId("a"): node, NodeId("b"): other}, {"b": Ref("b", "value")})
    assert [each.message for each in check(made) if each.severity == "error"] == [message]


def test_bodies_that_are_right_are_not_complained_of():
    for node in (ROUTER, AGENT):
        made = Pipeline(Metadata("x"), {NodeId("a"): node}, {"b": Ref("a", node.ports()[-1])})
        assert check(made) == []
