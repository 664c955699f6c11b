"""Nodes inside nodes: how they are read, what they see, what types come out, and how they are written."""

import pytest

from graphs.bindings import Ref
from graphs.errors import PipelineError
from graphs.inference import typed
from graphs.loader import load
from graphs.nodes.branch import Branch
from graphs.pipeline import Fallback, NodeId, Retry
from graphs.ports import ANY, INTEGER, NUMBER, STRING, list_of, optional, stream_of
from graphs.writer import to_data, to_yaml

HEAD = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: demo}
inputs: {question: string, words: 'list[string]', n: {type: integer, default: 3}}
"""

FULL = {
    "map": """
  search:
    map:
      over: ${inputs.words}
      as: word
      max_concurrency: 2
      reduce: {text: join, place: sum}
      nodes:
        say: {prompt: {template: "{{ w }} {{ q }}"}, with: {w: "${word}", q: "${inputs.question}"}}
        place: {value: "${word.index}", after: [say]}
      outputs: {text: "${say.text}", place: "${place.value}", item: "${word}"}
outputs: {text: "${search.text}", sum: "${search.place}", items: "${search.item}"}
""",
    "branch": """
  answer:
    branch:
      - when: size(inputs.question) < 9
        nodes:
          a: {llm: {model: small}, with: {prompt: "${inputs.question}"}}
          b: {value: "${a.text}"}
        outputs: {said: "${b.value}"}
      - nodes: {b: {value: 3}}
        outputs: {said: "${inputs.question}", n: "${b.value}"}
outputs: {said: "${answer.said}", n: "${answer.n}"}
""",
    "loop": """
  refine:
    loop:
      max_iterations: 4
      as: so_far
      until: next.text == "done" || so_far.iteration > inputs.n
      nodes: {next: {llm: {model: small}, with: {prompt: "${so_far.draft}"}}}
      outputs: {draft: "${next.text}", why: "${next.finish_reason}"}
    with: {draft: "${inputs.question}", fixed: "${inputs.n}"}
outputs: {text: "${refine.draft}", why: "${refine.why}", passes: "${refine.iterations}", n: "${refine.fixed}"}
""",
    "router": """
  answer:
    router:
      model: small
      choices:
        easy:
          description: short questions
          nodes: {a: {value: "${inputs.question}"}}
          outputs: {said: "${a.value}"}
        hard:
          description: long questions
          nodes: {b: {llm: {model: large}, with: {prompt: "${inputs.question}"}}}
          outputs: {said: "${b.text}"}
    with: {text: "${inputs.question}"}
outputs: {said: "${answer.said}", choice: "${answer.choice}"}
""",
    "agent": """
  answer:
    agent:
      model: large
      max_steps: 3
      tools:
        count:
          description: Counts words
          inputs: {text: string, n: {type: integer, minimum: 1, default: 1}}
          nodes: {say: {prompt: {template: "{{ t }}"}, with: {t: "${args.text}"}}}
          outputs: {text: "${say.text}", n: "${args.n}", q: "${inputs.question}"}
    with: {prompt: "${inputs.question}"}
outputs: {text: "${answer.text}", steps: "${answer.steps}"}
""",
}

ONE = {
    "map": """
  say:
    map: {over: "${inputs.words}", as: word}
    prompt: {template: "{{ w }}"}
    with: {w: "${word}"}
outputs: {texts: "${say.text}"}
""",
    "map of a value": """
  pairs: {map: {over: "${inputs.words}"}, value: ["${item}", "${item.index}"]}
outputs: {pairs: "${pairs.value}"}
""",
    "map of a branch": """
  each:
    map: {over: "${inputs.words}"}
    branch:
    - {when: item == "a", value: "${item}"}
    - value: ${inputs.question}
outputs: {values: "${each.value}"}
""",
    "branch": """
  answer:
    branch:
    - when: size(inputs.question) < 9
      llm: {model: small}
      with: {prompt: "${inputs.question}"}
      retry: {attempts: 2}
      timeout: 2s
      fallback: [{model: large}, {value: no}]
    - llm: {model: large}
      with: {prompt: "${inputs.question}"}
outputs: {text: "${answer.text}"}
""",
    "loop": """
  twice:
    loop: {max_iterations: 2, value: "${state.value}"}
    with: {value: "${inputs.question}"}
outputs: {text: "${twice.value}"}
""",
    "router": """
  answer:
    router:
      model: small
      choices:
        easy: {description: short questions, value: yes}
        hard: {description: long questions, value: "${inputs.question}"}
    with: {text: "${inputs.question}"}
outputs: {said: "${answer.value}"}
""",
    "agent": """
  answer:
    agent:
      model: large
      tools:
        same: {description: Says it again, inputs: {text: string}, value: "${args.text}"}
    with: {prompt: "${inputs.question}"}
outputs: {text: "${answer.text}"}
""",
    "one inside one": """
  each: {value: "${inputs.question}"}
  step:
    branch:
    - when: inputs.n > 1
      branch:
      - when: inputs.n > 2
        map: {over: "${inputs.words}"}
        value: ["${item}", "${each}"]
      - value: ["${step2}"]
    - value: []
  step2: {value: "${inputs.n}"}
outputs: {value: "${step.value}", each: "${each.value}"}
""",
}


def pipeline_of(nodes):
    return load(f"{HEAD}nodes:{nodes}").pipeline


@pytest.mark.parametrize("text", [*FULL.values(), *ONE.values()], ids=[*FULL, *(f"one {n}" for n in ONE)])
def test_what_is_written_reads_as_the_same(text):
    pipeline = pipeline_of(text)
    again = load(to_yaml(pipeline)).pipeline
    assert again == pipeline
    assert again.content_hash() == pipeline.content_hash()


@pytest.mark.parametrize("name", ONE)
def test_one_node_is_written_as_one_node(name):
    text = to_yaml(pipeline_of(ONE[name]))
    assert text.count("nodes:") == 1


@pytest.mark.parametrize("name", FULL)
def test_several_nodes_are_written_in_full(name):
    assert to_yaml(pipeline_of(FULL[name])).count("nodes:") > 1


def test_one_node_is_the_body_that_it_stands_for():
    full = """
  say:
    map:
      over: ${inputs.words}
      as: word
      nodes: {each: {prompt: {template: "{{ w }}"}, with: {w: "${word}"}}}
      outputs: {text: "${each.text}"}
outputs: {texts: "${say.text}"}
"""
    assert pipeline_of(full).content_hash() == pipeline_of(ONE["map"]).content_hash()


def test_the_one_node_of_a_body_hides_no_name_around_it():
    outer = pipeline_of(ONE["one inside one"]).nodes[NodeId("step")]
    (first,) = outer.bodies["0"].nodes
    (second,) = outer.bodies["0"].nodes[first].bodies["0"].nodes
    assert (first, second) == ("step3", "step4")
    assert list(outer.bodies["0"].nodes[first].bodies["0"].nodes[second].bodies["body"].nodes) == ["each2"]
    assert set(outer.references()) == {
        *(Ref("inputs", name) for name in ("n", "words")),
        Ref("each", "value"),
        Ref("step2", "value"),
    }


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("map", {"text": STRING, "sum": INTEGER, "items": stream_of(list_of(STRING))}),
        ("branch", {"said": STRING, "n": optional(INTEGER)}),
        ("loop", {"text": STRING, "why": STRING, "passes": INTEGER, "n": INTEGER}),
        ("router", {"said": STRING, "choice": STRING}),
    ],
)
def test_types_come_out_of_bodies(name, types):
    assert typed(pipeline_of(FULL[name])).outputs == types


def test_types_inside_bodies():
    types = typed(pipeline_of(FULL["map"])).bodies[NodeId("search")]["body"]
    assert types.refs[Ref("word", "value")] == STRING
    assert types.refs[Ref("word", "index")] == INTEGER
    assert types.refs[Ref("inputs", "n")] == INTEGER
    assert types.ports[NodeId("place")] == {"value": INTEGER}


def test_what_may_be_absent_inside_is_optional_outside():
    text = """
  each:
    map:
      over: ${inputs.words}
      reduce: {least: min}
      nodes:
        long: {value: "${item}", when: size(item) > 3}
        count: {value: "${item.index}"}
      outputs: {long: "${long.value}", least: "${count.value}"}
outputs: {long: "${each.long}", least: "${each.least}"}
"""
    long = stream_of(list_of(optional(STRING)))
    assert typed(pipeline_of(text)).outputs == {"long": long, "least": optional(INTEGER)}


def test_a_branch_without_a_last_case_may_give_nothing():
    text = "\n  a: {branch: [{when: inputs.n > 1, value: 1}, {when: inputs.n > 2, value: 1.5}]}\n"
    pipeline = pipeline_of(text + "outputs: {a: '${a.value}'}\n")
    assert pipeline.nodes[NodeId("a")].spec == Branch(exhaustive=False)
    assert typed(pipeline).outputs == {"a": optional(NUMBER)}


def test_items_of_an_unknown_list_are_anything():
    text = '\n  a: {value: [1, "x", [], {}, 1.5, true]}\n  b: {map: {over: "${a}"}, value: "${item}"}\n'
    assert typed(pipeline_of(text + "outputs: {b: '${b.value}'}\n")).outputs["b"] == stream_of(list_of(ANY))


def test_how_a_node_is_treated_is_read_and_written():
    text = """
  a:
    llm: {model: small}
    with: {prompt: "${inputs.question}"}
    retry: {attempts: 5, on: [unavailable, timeout]}
    timeout: 1.5m
    fallback: [{model: tiny}, {value: "I could not"}]
    effects: pure
outputs: {text: "${a.text}"}
"""
    node = pipeline_of(text).nodes[NodeId("a")]
    assert node.retry == Retry(5, ("unavailable", "timeout"))
    assert node.timeout_s == 90
    assert node.fallback == (Fallback(model="tiny"), Fallback(value="I could not"))
    assert node.effects == "pure"
    data = to_data(pipeline_of(text))["nodes"]["a"]
    assert data["fallback"] == [{"model": "tiny"}, {"value": "I could not"}]
    assert data["retry"] == {"attempts": 5, "on": ["unavailable", "timeout"]}
    assert data["timeout"] == 90


def problems_of(nodes):
    with pytest.raises(PipelineError) as refused:
        pipeline_of(nodes)
    return [
        (p.code, p.position.line, p.position.column) for p in refused.value.problems if p.severity == "error"
    ]


def test_nodes_inside_are_not_seen_from_outside():
    text = '\n  a: {map: {over: "${inputs.words}", nodes: {b: {value: 1}}, outputs: {b: "${b}"}}}\n'
    assert problems_of(text + '  c: {value: "${b}"}\noutputs: {a: "${a.b}", c: "${c}"}\n') == [
        ("unknown-node", 7, 14)
    ]


def test_mistakes_inside_stand_where_they_were_written():
    text = """
  each:
    map: {over: "${inputs.words}"}
    prompt: {template: "{{ w }} {{ v }}"}
    with: {w: "${itm}"}
  answer:
    branch:
    - when: inputs.m > 1
      llm: {model: small, max_token: 3}
      with: {prompt: "${inputs.n}"}
outputs: {a: "${each.text}", b: {from: "${answer.text}", optional: true}}
"""
    assert problems_of(text) == [
        ("missing-input", 8, 36),
        ("unknown-node", 9, 15),
        ("unknown-input", 12, 13),
        ("unknown-field", 13, 27),
        ("type-mismatch", 14, 22),
    ]
