"""Pipelines that somebody sends to do harm, and a word of why each is refused."""

from __future__ import annotations

HEAD = """\
apiVersion: clustergraph/v1
kind: Pipeline
metadata: {name: mine, version: 0.1.0}
inputs: {q: string}
"""


def with_nodes(nodes: str, output: str = "${a.text}") -> str:
    return f"{HEAD}nodes:\n{nodes}\noutputs: {{out: '{output}'}}\n"


def rendered(template: str) -> str:
    return with_nodes(f"  a: {{prompt: {{template: {template!r}}}}}")


def guarded(condition: str) -> str:
    return with_nodes(f'  a: {{prompt: {{template: "x"}}, when: "{condition}"}}')


def many(count: int) -> str:
    return with_nodes("\n".join(f'  n{each}: {{prompt: {{template: "x"}}}}' for each in range(count)))


def nested_maps(depth: int, items: int) -> str:
    name, inner = "a", 'a: {llm: {model: tiny-chat, max_tokens: 1}, with: {prompt: "x"}}'
    for level in range(depth):
        body = f'nodes: {{{inner}}}, outputs: {{text: "${{{name}.text}}"}}'
        name = f"n{level}"
        inner = f"{name}: {{map: {{over: [1], as: i{level}, max_items: {items}, {body}}}}}"
    return f'{HEAD}nodes: {{{inner}}}\noutputs: {{out: "${{{name}.text}}"}}\n'


def circle() -> str:
    ends = [(a, b) for a, b in (("a", "b"), ("b", "a"))]
    nodes = (f'  {a}: {{prompt: {{template: "{{{{ x }}}}"}}, with: {{x: "${{{b}.text}}"}}}}' for a, b in ends)
    return with_nodes("\n".join(nodes))


TALKATIVE = '  a: {llm: {model: tiny-chat, max_tokens: 131072}, with: {prompt: "${inputs.q}"}}'
BOMB = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: [*c, *c, *c]\n"
LOOPS = "{% for i in range(1000000000) %}{% for j in range(1000000000) %}x{% endfor %}{% endfor %}"
ITSELF = '  a: {subgraph: {graph: mine}, with: {q: "${inputs.q}"}}'

ATTACKS = {
    "a cycle": (circle(), "nodes wait for each other"),
    "a bomb of maps": (nested_maps(6, 100), "times in one run"),
    "a smaller bomb of maps": (nested_maps(3, 40), "more than 10000"),
    "very many tokens": (with_nodes(TALKATIVE), "tokens"),
    "deep lists": (HEAD + "nodes: " + "[" * 5_000, "deep"),
    "deep mappings": (HEAD + "nodes: " + "{a: " * 2_000, "deep"),
    "aliases": (BOMB, "anchor"),
    "more nodes than may be": (many(300), "more than 200 nodes"),
    "megabytes of nodes": (many(80_000), "at most 64 KiB"),
    "a template that loops": (rendered(LOOPS), "range"),
    "a template that reaches in": (rendered("{{ x.__class__.__mro__ }}"), "x"),
    "a condition of many brackets": (guarded("(" * 400 + "true" + ")" * 400), "nested"),
    "a long condition": (guarded(" && ".join(["true"] * 400)), "characters"),
    "a condition that loops": (guarded("[1, 2].all(x, [1, 2].all(y, true))"), "all"),
    "a prompt by path": (with_nodes('  a: {prompt: {use: "prompts/../../etc/passwd"}}'), "prompt"),
    "a file as a template": (with_nodes("  a: {prompt: {file: /etc/passwd}}"), "unknown field file"),
    "nothing": ("", "there is no pipeline in here"),
    "no YAML": ("a: [", "expected"),
    "a list": ("[1, 2]", "expected fields"),
    "a graph that uses itself": (with_nodes(ITSELF), "there is no graph mine"),
}
