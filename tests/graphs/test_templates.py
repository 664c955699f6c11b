"""Templates: what renders, what is refused and where, and that nothing runs away."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.documents import Document
from graphs.templates import (
    MAX_RENDERED_CHARS,
    MAX_TEMPLATE_CHARS,
    PromptTemplate,
    RenderError,
    TemplateRefused,
    compile_template,
    outline,
)


def test_renders_values_structs_and_loops():
    template = PromptTemplate(
        "{% for hit in hits %}\n{{ loop.index }}. {{ hit.text }}\n{% endfor %}\n{{ q | upper }}"
    )
    hits = [Document("1", "one"), {"text": "two"}]
    assert template.render({"hits": hits, "q": "why"}) == "1. one\n2. two\nWHY"


def test_variables_are_the_free_names_with_their_lines():
    template = PromptTemplate(
        "{{ a }}\n{% for a, b in c.d if d %}{{ a }}{{ b }}{{ loop }}{% else %}{{ b }}{% endfor %}\n{{ c }}"
    )
    assert template.variables == {"a": 1, "c": 2, "d": 2, "b": 2}


@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        ("a\n{{ x.y() }}", "call is not allowed", 2),
        ("{{ 'a' * 9 }}", "mul is not allowed", 1),
        ("{{ 2 ** 9 }}", "pow is not allowed", 1),
        ("{{ '%999d' % 1 }}", "mod is not allowed", 1),
        ("{% set a = 1 %}", "assign is not allowed", 1),
        ("{% macro m(x) %}{% endmacro %}", "macro is not allowed", 1),
        ("{% include 'x' %}", "include is not allowed", 1),
        ("{% extends 'x' %}", "extends is not allowed", 1),
        ("\n\n{{ x | jon }}", "unknown filter jon", 3),
        ("{{ x | center(9) }}", "unknown filter center", 1),
        ("{{ x is odd_one }}", "unknown test odd_one", 1),
        ("{{ _x }}", "begins with an underscore", 1),
        ("{{ x | _bounded }}", "begins with an underscore", 1),
        ("one\n{{ x", "unexpected end of template", 2),
        ("{% if x %}", "Unexpected end of template", 1),
        ("x" * (MAX_TEMPLATE_CHARS + 1), "longer than", 1),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nested too deep", 1),
        ("{{ x" + " | upper" * 500 + " }}", "nested too deep", 1),
        ("{% for a, loop in b %}{% endfor %}", "loop is what every loop has already", 1),
        ("{% for a in b %}" * 30 + "{% endfor %}" * 30, "nested too deep", 1),
    ],
)
def test_refused(source, message, line):
    with pytest.raises(TemplateRefused) as refused:
        PromptTemplate(source)
    assert message in refused.value.faults[0].message
    assert refused.value.faults[0].line == line


def test_every_fault_is_named_and_variables_are_known_all_the_same():
    with pytest.raises(TemplateRefused) as refused:
        PromptTemplate("{{ a | jon }}\n{{ b() }}")
    assert {(fault.line, fault.token) for fault in refused.value.faults} == {(1, "jon"), (2, None)}
    assert refused.value.faults[-1].hint == "did you mean join?" or refused.value.faults[0].hint
    assert dict(refused.value.variables) == {"a": 1, "b": 2}
    assert pickle.loads(pickle.dumps(refused.value)).faults == refused.value.faults


@pytest.mark.parametrize(
    ("source", "values", "message"),
    [
        ("{{ x }}", {}, "'x' is undefined"),
        ("{{ x.y }}", {"x": {}}, "has no attribute 'y'"),
        ("{{ x.__class__ }}", {"x": 1}, "unsafe"),
        ("{{ x | map(attribute='__class__') | join }}", {"x": [1]}, "unsafe"),
        ("{% for y in x %}{{ y }}{% endfor %}", {"x": 1}, "not iterable"),
        ("{% for y in x %}{% endfor %}", {"x": [0] * 20_000}, "more than 10000 times"),
        (
            "{% for y in x %}{% for z in x %}{% endfor %}{% endfor %}",
            {"x": [0] * 200},
            "more than 10000 times",
        ),
        ("{% for y in x %}{{ y }}{% endfor %}", {"x": ["a" * 1000] * 300}, "longer than"),
        ("{{ x | join(y) }}", {"x": ["a"] * 1000, "y": "b" * 1000}, "join makes more"),
        ("{{ 1 - x }}", {"x": "a"}, "unsupported operand"),
    ],
)
def test_render_errors(source, values, message):
    with pytest.raises(RenderError, match=message):
        PromptTemplate(source).render(values)


def test_text_at_the_bound_is_rendered():
    assert len(PromptTemplate("{{ x }}").render({"x": "a" * MAX_RENDERED_CHARS})) == MAX_RENDERED_CHARS


def test_json_is_not_escaped():
    assert PromptTemplate("{{ x | tojson }}").render({"x": {"a": "<é>"}}) == '{"a": "<é>"}'


@given(st.text(max_size=60))
def test_any_text_is_a_template_or_refused(source):
    assert isinstance(_made(source), PromptTemplate | list)


@given(
    st.lists(
        st.sampled_from(["{{ ", " }}", "{% ", " %}", "for x in y", "endfor", "if", "(", ")", "x", "|upper"]),
        max_size=14,
    )
)
def test_no_syntax_breaks_the_parser(pieces):
    made = _made("".join(pieces))
    assert isinstance(made, PromptTemplate) or all(fault.line >= 1 for fault in made)
    known = outline("".join(pieces))
    if isinstance(made, PromptTemplate):
        assert (known.variables, known.faults) == (made.variables, ())
    else:
        assert list(known.faults) == made


def _made(source):
    """The template, or the faults for which it was refused."""
    try:
        return PromptTemplate(source)
    except TemplateRefused as refused:
        return refused.faults


def test_compiled_once():
    assert compile_template("{{ once }}") is compile_template("{{ once }}")


@pytest.mark.parametrize(
    ("source", "head"),
    [
        ("", ""),
        ("constant", "constant"),
        ("Answer: {{ question }} now", "Answer: "),
        ("{{ question }} now", ""),
        ("a{# note #}b {% if x %}c{% endif %}", "ab "),
        ("a\n{% for x in xs %}b{% endfor %}", "a\n"),
    ],
)
def test_the_head_is_what_every_rendering_begins_with(source, head):
    assert outline(source).head == head
    assert PromptTemplate(source).render({"question": "q", "x": True, "xs": [1]}).startswith(head)
