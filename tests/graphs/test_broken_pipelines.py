"""Every kind of mistake, with the line and column at which a person finds it."""

import pytest

from graphs.loader import load
from tests.graphs.broken import ANSWER, HEAD, PARTS, TAIL, problems_of, the_error

NODES = {
    "keyword of a schema": (
        "  a:\n    llm: {model: m, schema: {type: array, itmes: {}}}\n    with: {prompt: a}\n",
        "bad-schema",
        7,
        43,
        "did you mean items?",
    ),
    "input of an llm that is no variable of its prompt": (
        '  a: {llm: {model: small, prompt: "Say {{ word }}"}, with: {text: a, word: b}}\n',
        "unknown-port",
        6,
        61,
        "known: history, word",
    ),
    "unknown kind": ("  a: {lm: {model: small}}\n", "unknown-kind", 6, 7, "did you mean llm?"),
    "no kind": ("  a: {with: {}}\n", "bad-value", 6, 3, None),
    "two kinds": ("  a: {llm: {model: small}, embed: {model: m}}\n", "bad-value", 6, 3, None),
    "unknown field of a node": (
        "  a: {embed: {model: m}, wit: {}, with: {text: a}}\n",
        "unknown-field",
        6,
        26,
        "did you mean with?",
    ),
    "unknown field of a spec": (
        "  a:\n    embed: {model: m, max_prompt_token: 3}\n    with: {text: a}\n",
        "unknown-field",
        7,
        23,
        "did you mean max_prompt_tokens?",
    ),
    "field of the wrong type": (
        "  a:\n    embed: {model: 7}\n    with: {text: a}\n",
        "bad-value",
        7,
        20,
        None,
    ),
    "field out of bounds": (
        "  a:\n    embed: {model: m, max_prompt_tokens: 0}\n    with: {text: a}\n",
        "bad-value",
        7,
        42,
        None,
    ),
    "missing field": ("  a:\n    embed: {}\n    with: {text: a}\n", "missing", 7, 5, None),
    "unknown node": ('  a: {value: "${answr.text}"}\n', "unknown-node", 6, 14, "did you mean answer?"),
    "unknown output port": ('  a: {value: "${answer.txt}"}\n', "unknown-port", 6, 14, "did you mean text?"),
    "unknown input": (
        '  a: {value: "${inputs.qestion}"}\n',
        "unknown-input",
        6,
        14,
        "did you mean question?",
    ),
    "unknown context": (
        '  a: {value: "${context.sesionHistory}"}\n',
        "unknown-context",
        6,
        14,
        "did you mean sessionHistory?",
    ),
    "undeclared context": (
        '  a: {value: "${context.sessionHistory}"}\n',
        "undeclared-context",
        6,
        14,
        "add it to context: {reads: [sessionHistory]}",
    ),
    "reference inside a list": ('  a: {value: [1, "${b.x}"]}\n', "unknown-node", 6, 18, None),
    "bad reference": ('  a: {value: "${b.c.d}"}\n', "bad-reference", 6, 14, None),
    "inputs without a name": ('  a: {value: "${inputs}"}\n', "bad-reference", 6, 14, None),
    "node without an output called value": (
        '  a: {value: "${answer}"}\n',
        "unknown-port",
        6,
        14,
        "known: finish_reason, sentences, text",
    ),
    "reference inside text": ('  a: {value: "hello ${answer.text}"}\n', "bad-reference", 6, 14, None),
    "with of a value": ("  a: {value: 1, with: {x: 1}}\n", "unknown-field", 6, 17, None),
    "unknown input port": (
        "  a:\n    embed: {model: m}\n    with: {text: a, txt: b}\n",
        "unknown-port",
        8,
        21,
        "did you mean text?",
    ),
    "missing input port": ("  a: {embed: {model: m}}\n", "missing-input", 6, 3, None),
    "type mismatch of a reference": (
        '  a:\n    embed: {model: m}\n    with: {text: "${inputs.n}"}\n',
        "type-mismatch",
        8,
        18,
        None,
    ),
    "type mismatch of a constant": (
        "  a:\n    embed: {model: m}\n    with: {text: 7}\n",
        "type-mismatch",
        8,
        18,
        None,
    ),
    "constant out of bounds": (
        "  v: {embed: {model: m}, with: {text: a}}\n  a:\n    retrieve: {index: i}\n"
        '    with: {embedding: "${v.embedding}", top_k: 0}\n',
        "type-mismatch",
        9,
        48,
        None,
    ),
    "cycle": ('  a: {value: "${b.value}"}\n  b: {value: "${a.value}"}\n', "cycle", 6, 3, None),
    "cycle of one": ('  a: {value: "${a.value}"}\n', "cycle", 6, 3, None),
    "unknown node in after": (
        "  a: {value: 1, after: [answer, answr]}\n",
        "unknown-node",
        6,
        33,
        "did you mean answer?",
    ),
    "node named twice in after": ("  a: {value: 1, after: [answer, answer]}\n", "duplicate", 6, 33, None),
    "after that is no list": ("  a: {value: 1, after: answer}\n", "bad-value", 6, 24, "write [answer]"),
    "after with a number": ("  a: {value: 1, after: [answer, 3]}\n", "bad-value", 6, 33, None),
    "misspelt after": ("  a: {value: 1, afer: []}\n", "unknown-field", 6, 17, "did you mean after?"),
    "cycle through after": (
        '  a: {value: 1, after: [b]}\n  b: {value: "${a.value}"}\n',
        "cycle",
        6,
        3,
        None,
    ),
    "node after itself": ("  a: {value: 1, after: [a]}\n", "cycle", 6, 3, None),
    "syntax of a condition": (
        "  a: {value: 1, when: answer.text answer.text}\n",
        "bad-condition",
        6,
        35,
        None,
    ),
    "condition that ends": ('  a: {value: 1, when: "answer.text ==="}\n', "bad-condition", 6, 38, None),
    "condition on a later line": (
        "  a:\n    value: 1\n    when: |\n      answer.text != '' &&\n      answr.text != ''\n",
        "unknown-node",
        10,
        7,
        "did you mean answer?",
    ),
    "unknown port in a condition": (
        "  a: {value: 1, when: answer.txt != ''}\n",
        "unknown-port",
        6,
        23,
        "did you mean text?",
    ),
    "unknown input in a condition": (
        "  a: {value: 1, when: size(inputs.qestion) > 3}\n",
        "unknown-input",
        6,
        28,
        "did you mean question?",
    ),
    "unknown function in a condition": (
        "  a: {value: 1, when: siz(answer.text) > 3}\n",
        "bad-condition",
        6,
        23,
        "did you mean size?",
    ),
    "name alone in a condition": (
        "  a: {value: 1, when: answer != ''}\n",
        "unknown-port",
        6,
        23,
        "known: finish_reason, sentences, text",
    ),
    "inputs alone in a condition": (
        "  a: {value: 1, when: inputs != ''}\n",
        "bad-condition",
        6,
        23,
        "write node.port, inputs.name or context.field",
    ),
    "condition that is no text": ("  a: {value: 1, when: true}\n", "bad-value", 6, 23, None),
    "reference in a condition": (
        '  a: {value: 1, when: "${answer.text} == 1"}\n',
        "bad-condition",
        6,
        23,
        "write node.port without ${ }",
    ),
    "condition that is no question": ("  a: {value: 1, when: answer.text}\n", "bad-condition", 6, 23, None),
    "types of a condition": ("  a: {value: 1, when: answer.text > 3}\n", "bad-condition", 6, 23, None),
    "condition on its own node": ("  a: {value: 1, when: a.value == 1}\n", "cycle", 6, 3, None),
    "condition on what may be absent": (
        "  a: {value: x, when: inputs.n > 1}\n  b: {value: 1, when: a.value == 'x' || size(a.value) > 2}\n",
        "bad-condition",
        7,
        23,
        None,
    ),
    "bad template": (
        "  a:\n    prompt:\n      template: |\n        one\n        {{ x | jon }}\n    with: {x: 1}\n",
        "bad-template",
        10,
        16,
        "did you mean join?",
    ),
    "template syntax": (
        "  a:\n    prompt:\n      template: |\n        one\n        {{ x\n    with: {}\n",
        "bad-template",
        10,
        9,
        None,
    ),
    "template variable without a value": (
        "  a:\n    prompt:\n      template: |\n        one\n        two {{ nme }}\n    with: {}\n",
        "missing-input",
        10,
        16,
        "give it in with: nme",
    ),
    "bad node name": ("  a.b: {value: 1}\n", "bad-name", 6, 3, None),
    "reserved node name": ("  inputs: {value: 1}\n", "bad-name", 6, 3, None),
    "duplicate node": ("  a: {value: 1}\n  a: {value: 2}\n", "duplicate", 7, 3, "first on line 6"),
    "node that is no mapping": ("  a: 3\n", "bad-value", 6, 6, None),
    "with that is no mapping": ("  a:\n    embed: {model: m}\n    with: 3\n", "bad-value", 8, 11, None),
    "alias": ("  a: &x {value: 1}\n", "alias", 6, 6, None),
    "tag": ("  a: !!map {value: 1}\n", "tag", 6, 6, None),
}


@pytest.mark.parametrize("name", NODES)
def test_mistake_in_nodes(name):
    nodes, code, line, column, hint = NODES[name]
    problem = the_error(HEAD + nodes + ANSWER + TAIL)
    assert (problem.code, problem.position.line, problem.position.column) == (code, line, column)
    assert problem.file == "demo.yaml"
    if hint is not None:
        assert problem.hint == hint


TOP = {
    "api version": ("apiVersion: clustergraph/v2\nkind: Pipeline\n", "bad-value", 1, 13),
    "kind": ("apiVersion: clustergraph/v1\nkind: Pipe\n", "bad-value", 2, 7),
    "unknown section": ("apiVersion: clustergraph/v1\nkind: Pipeline\noutput: {}\n", "unknown-field", 3, 1),
    "unknown type": ("inputs: {question: strng}\n", "unknown-type", 1, 20),
    "unknown type of an item": ("inputs: {question: 'list[strng]'}\n", "unknown-type", 1, 20),
    "input without a type": ("inputs: {question: {default: 3}}\n", "missing", 1, 20),
    "unknown field of an input": ("inputs: {question: {type: string, minimum: 3}}\n", "unknown-field", 1, 35),
    "bad limit": ("inputs: {question: {type: string, minLength: -3}}\n", "bad-value", 1, 46),
    "bad enum": ("inputs: {question: {type: string, enum: []}}\n", "bad-value", 1, 41),
    "bad default": ("inputs: {question: {type: string, default: 3}}\n", "bad-default", 1, 44),
    "default null": ("inputs: {question: {type: string, default: null}}\n", "bad-default", 1, 44),
    "bad description": ("inputs: {question: {type: string, description: 3}}\n", "bad-value", 1, 48),
    "input name": ("inputs: {question: string, 'a b': string}\n", "bad-name", 1, 28),
    "metadata without a name": ("metadata: {version: 1.0.0}\n", "missing", 1, 1),
    "version that is a number": ("metadata: {name: demo, version: 1.0}\n", "bad-value", 1, 33),
    "pipeline name": ("metadata: {name: a b}\n", "bad-name", 1, 18),
    "unknown policy": ("policies: {prio: high}\n", "unknown-field", 1, 12),
    "bad priority": ("policies: {priority: urgent}\n", "bad-value", 1, 22),
    "bad deadline": ("policies: {deadline: soon}\n", "bad-value", 1, 22),
    "bad durability": ("policies: {durability: always}\n", "bad-value", 1, 24),
    "deadline in the wrong unit": ("policies: {deadline_s: 3}\n", "unknown-field", 1, 12),
    "bad cache": ("policies: {cache: {ttl: soon}}\n", "bad-value", 1, 25),
    "cache of years": ("policies: {cache: {ttl: 200h}}\n", "bad-cache", 1, 25),
    "cache that is no mapping": ("policies: {cache: 3}\n", "bad-value", 1, 19),
    "unknown context field": ("context: {reads: [sesionHistory]}\n", "unknown-context", 1, 19),
    "chat input": ("chat: {input: qestion, output: text}\n", "unknown-input", 1, 15),
    "chat output": ("chat: {input: question, output: txt}\n", "unknown-output", 1, 33),
    "chat without output": ("chat: {input: question}\n", "missing", 1, 1),
    "section that is no mapping": ("context: 3\n", "bad-value", 1, 10),
}


@pytest.mark.parametrize("name", TOP)
def test_mistake_at_the_top(name):
    section, code, line, column = TOP[name]
    rest = "".join(text for part, text in PARTS.items() if f"{part}:" not in section)
    problem = the_error(section + rest)
    assert (problem.code, problem.position.line, problem.position.column) == (code, line, column)


@pytest.mark.parametrize("part", ["metadata", "nodes", "outputs"])
def test_missing_section(part):
    text = "".join(text for name, text in PARTS.items() if name != part)
    assert "missing" in {problem.code for problem in problems_of(text)}


@pytest.mark.parametrize("section", ["outputs: {text: hello}\n", "outputs: {text: ['${answer.text}']}\n"])
def test_output_that_is_no_reference(section):
    text = "".join(section if name == "outputs" else text for name, text in PARTS.items())
    assert the_error(text).code == "bad-reference"


ABSENT = {
    "not said": ("outputs: {text: '${a.value}'}\n", "may-be-absent", 7, 17),
    "of one that needs it": ("outputs: {text: '${b.text}'}\n", "may-be-absent", 7, 17),
    "default of another type": ("outputs: {text: {from: '${b.text}', default: 3}}\n", "bad-default", 7, 46),
    "both": (
        "outputs: {text: {from: '${b.text}', optional: true, default: x}}\n",
        "bad-value",
        7,
        62,
    ),
    "optional false": ("outputs: {text: {from: '${b.text}', optional: false}}\n", "bad-value", 7, 47),
    "unknown field": (
        "outputs: {text: {from: '${b.text}', optional: true, defalt: x}}\n",
        "unknown-field",
        7,
        53,
    ),
    "no reference": ("outputs: {text: {from: hello, optional: true}}\n", "bad-reference", 7, 24),
    "unknown node": ("outputs: {text: {from: '${c.text}', optional: true}}\n", "unknown-node", 7, 24),
    "as a reply": (
        "chat: {input: question, output: text}\noutputs: {text: {from: '${b.text}', optional: true}}\n",
        "type-mismatch",
        7,
        33,
    ),
}


@pytest.mark.parametrize("name", ABSENT)
def test_output_that_may_be_absent(name):
    outputs, code, line, column = ABSENT[name]
    nodes = (
        "nodes:\n  a: {value: hi, when: size(inputs.question) > 3}\n"
        "  b: {prompt: {template: '{{ x }}'}, with: {x: '${a.value}'}}\n"
    )
    kept = ("apiVersion", "kind", "metadata", "inputs")
    problem = the_error("".join(PARTS[part] for part in kept) + nodes + outputs)
    assert (problem.code, problem.position.line - 1, problem.position.column) == (code, line, column)


def test_a_default_that_is_never_used_is_a_warning():
    parts = PARTS | {"outputs": "outputs: {text: {from: '${answer.text}', default: x}}\n"}
    (warning,) = load("".join(parts.values())).warnings
    assert (warning.code, warning.position.column) == ("unused-default", 11)


def test_chat_types():
    base = PARTS | {
        "inputs": "inputs: {question: string, n: integer}\n",
        "chat": "chat: {input: n, output: hits}\n",
        "nodes": "nodes:\n  a: {value: {x: '${inputs.n}'}}\n" + ANSWER,
        "outputs": "outputs: {text: '${answer.text}', hits: '${a.value}'}\n",
    }
    messages = sorted(problem.message for problem in problems_of("".join(base.values())))
    assert messages == [
        "a chat gives only n, but question is required too",
        "hits is a {x: integer}, a reply is a string",
        "n is a integer, a chat gives a string",
    ]
