"""The conditions of nodes: CEL (Common Expression Language), cut down to what always ends quickly.

    size(rank.hits) > 0 && inputs.lang == "en"   ─►   size ( _0 ) > 0 && _1 == "en"      _0: rank.hits
                                                                                         _1: inputs.lang

References stand bare in a condition, as `node.port`, `inputs.name` or `context.field`; `item` alone is
`item.value`. Each becomes a numbered operand, so that a condition knows nothing of names: two that say the
same are equal, and a stage of the compiler replaces operands as it replaces what is bound to inputs. A value
that is absent is `null`.

Bounds: the length, the depth, a list of functions, no loop inside a loop, and the size of lists.
https://github.com/google/cel-spec
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import cel
import msgspec

from graphs.bindings import RESERVED, VALUE, Binding, Ref
from graphs.errors import nearest, word_pattern
from graphs.ports import PortType, type_of

MAX_CONDITION_CHARS = 1_000
MAX_TOTAL_CHARS = 524_288
"""Of all conditions of one file together: each costs milliseconds to check."""
MAX_FAULTS = 8
"""Of one condition, that are named at once."""
MAX_DEPTH = 16
"""Of brackets inside each other."""
MAX_ITEMS = 2_000
"""Of one list or object that a condition looks at."""

FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "int", "double", "string", "has"}
)
LOOPS = frozenset({"exists", "exists_one", "all", "filter"})
_WORDS = frozenset({"true", "false", "null", "in"})

_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
    |(?P<text>[bB]?[rR][bB]?(?:'[^'\n]*'|"[^"\n]*")|[bB]?(?:'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"))
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+(?:[eE][+-]?[0-9]+|[uU])?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:,.()\[\]{}])""",
    re.VERBOSE,
)
_DASHED = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z0-9_]+)+)(?=\s*\.)")
"""A node's name with dashes in it. A minus before a reference is told from it by a space."""
_PLACE = re.compile(r"<input>:\d+:(\d+): (?:Syntax error: )?([^\n]*)")
_FOUND = re.compile(
    r"(?:mismatched|extraneous) input '.*?' expecting|missing '.*?' at '.*?'|no viable alternative at input"
    r" '.*?'|token recognition error"
)
_OPEN, _CLOSE = "([{", ")]}"

Cast = Literal["integer", "number"]


class Operand(msgspec.Struct, frozen=True, omit_defaults=True):
    """A value that a condition looks at."""

    binding: Binding
    cast: Cast | None = None
    """JSON does not tell 3 from 3.0, CEL does: what a number must be made."""


class Condition(msgspec.Struct, frozen=True):
    """A condition without names."""

    text: str
    """CEL over `_0`, `_1` and so on."""
    operands: tuple[Operand, ...]


class ConditionFault(msgspec.Struct, frozen=True):
    """A mistake in a condition."""

    message: str
    line: int = 1
    """Of the condition, from 1."""
    token: str | None = None
    nth: int = 0
    """Which of the places where the token stands on its line, from 0."""
    hint: str | None = None


class ConditionRefused(ValueError):
    """A condition that cannot be used. `faults` says why."""

    def __init__(self, faults: Sequence[ConditionFault]) -> None:
        super().__init__("; ".join(fault.message for fault in faults))
        self.faults = list(faults)

    def __reduce__(self) -> tuple[object, ...]:
        return ConditionRefused, (self.faults,)


class ConditionError(ValueError):
    """The values do not fit the condition."""


class Mention(NamedTuple):
    """A reference in a condition: the first place where it stands."""

    ref: Ref
    line: int
    token: str
    """As it is written."""
    nth: int
    """Which of the places where it is written on its line, from 0."""


class Parsed(NamedTuple):
    """A condition that was checked as far as it can be without the pipeline around it."""

    text: str
    mentions: tuple[Mention, ...]
    """One for each operand, in their order."""


def parse_condition(source: str) -> Parsed:
    """Raises `ConditionRefused` with its mistakes, at most `MAX_FAULTS`."""
    parsed = _parse(source)
    if isinstance(parsed, Parsed):
        return parsed
    raise ConditionRefused(parsed)


@lru_cache(maxsize=4096)
def _parse(source: str) -> Parsed | list[ConditionFault]:
    """The condition or what is wrong with it: a refusal is remembered too."""
    if len(source) > MAX_CONDITION_CHARS:
        return [ConditionFault(f"longer than {MAX_CONDITION_CHARS} characters")]
    try:
        scanner = _Scanner(_tokens(source), source)
    except ConditionRefused as refused:
        return refused.faults
    scanner.scan()
    if scanner.faults:
        return scanner.faults
    try:
        _program(" ".join(scanner.words))
    except ValueError as error:
        return [scanner.syntax_fault(str(error))]
    return Parsed(" ".join(scanner.words), tuple(scanner.mentions.values()))


def references_of(source: str | None) -> tuple[Ref, ...]:
    """What a condition refers to; nothing where there is none, or none that can be used."""
    try:
        return () if source is None else tuple(mention.ref for mention in parse_condition(source).mentions)
    except ConditionRefused:
        return ()


def renamed(source: str, names: Mapping[str, str]) -> str:
    """The condition with other words where values begin with one of `names`.

    A text that is no condition comes back as it is: what is wrong with it is said when it is parsed.
    """
    try:
        tokens = _tokens(source)
    except ConditionRefused:
        return source
    words, place = [], 0
    for index, token in enumerate(tokens):
        before = tokens[index - 1].text if index else ""
        after = tokens[index + 1].text if index + 1 < len(tokens) else ""
        begins_value = token.kind == "name" and before != "." and after != "("
        words += [
            source[place : token.start],
            names.get(token.text, token.text) if begins_value else token.text,
        ]
        place = token.start + len(token.text)
    return "".join([*words, source[place:]])


def condition(source: str, types: Mapping[Ref, PortType]) -> Condition:
    """The condition with its references as operands. Raises `ConditionRefused`."""
    parsed = parse_condition(source)
    operands = (Operand(mention.ref, _cast(types.get(mention.ref))) for mention in parsed.mentions)
    return Condition(parsed.text, tuple(operands))


@lru_cache(maxsize=4096)
def _program(text: str) -> cel.Program:
    """Raises `ValueError`."""
    return cel.compile(text)


@lru_cache(maxsize=4096)
def predicate(text: str, casts: tuple[Cast | None, ...]) -> Callable[[Sequence[Any]], bool]:
    """A function of the operands' values that says whether the condition holds.

    It takes microseconds and raises `ConditionError`.
    """
    program = _program(text)

    def test(values: Sequence[Any]) -> bool:
        try:
            pairs = zip(values, casts, strict=True)
            given = {f"_{place}": _operand(value, cast) for place, (value, cast) in enumerate(pairs)}
            result = program.execute(given)
        except _UNFIT as error:
            raise ConditionError(_why(error)) from error
        if not isinstance(result, bool):
            raise ConditionError(f"it gives a {type_of(result)}, not true or false")
        return result

    return test


def predicate_of(condition: Condition) -> Callable[[Sequence[Any]], bool]:
    """The `predicate` of a condition."""
    return predicate(condition.text, tuple(operand.cast for operand in condition.operands))


def type_fault(parsed: Parsed, types: Sequence[PortType | None], absent: Sequence[bool]) -> str | None:
    """What the types of the operands make impossible, found by trying one value of each; None where nothing.

    `absent` says which may be `null` besides. Operands of types that say too little are not judged.
    """
    if any(not _is_telling(port_type) for port_type in types):
        return None
    values = [_sample(port_type) for port_type in types if port_type is not None]
    casts = tuple(_cast(port_type) for port_type in types)
    test = predicate(parsed.text, casts)
    open_fields = any(_has_open_fields(port_type) for port_type in types)
    if (fault := _try(test, values, open_fields)) is not None:
        return fault
    for place, (mention, may_be_absent) in enumerate(zip(parsed.mentions, absent, strict=True)):
        without = [None if index == place else value for index, value in enumerate(values)]
        if may_be_absent and _try(test, without, open_fields) is not None:
            name = mention.token
            return f"{name} may be absent: ask for {name} != null first"
    return None


_UNFIT = (TypeError, KeyError, IndexError, ArithmeticError, RuntimeError, ValueError)
"""What CEL raises where values do not fit."""


def _try(test: Callable[[Sequence[Any]], bool], values: Sequence[Any], open_fields: bool) -> str | None:
    try:
        test(values)
    except ConditionError as error:
        cause = error.__cause__
        if isinstance(cause, IndexError | ArithmeticError) or (isinstance(cause, KeyError) and open_fields):
            return None
        if isinstance(cause, RuntimeError) and "Undefined" not in str(cause):
            return None
        return str(error)
    return None


def _why(error: Exception) -> str:
    """CEL's message in our words, bounded."""
    if isinstance(error, KeyError):
        return f"there is no field {error.args[0]!s:.80}"
    text = str(error)
    if found := re.match(r"Undefined variable or function: '(\w+)'", text):
        return f"{found[1]} does not take what it is given"
    if isinstance(error, TypeError):
        return "its values are of types that do not go together; numbers with a point and without do not mix"
    return text.split("\n")[0][:200]


def _cast(port_type: PortType | None) -> Cast | None:
    inner = port_type.item if port_type is not None and port_type.name == "optional" else port_type
    if inner is None or inner.name not in ("integer", "number"):
        return None
    return "integer" if inner.name == "integer" else "number"


def _operand(value: Any, cast: Cast | None) -> Any:
    if isinstance(value, bool | str) or value is None:
        return value
    if cast is not None and isinstance(value, int | float):
        return int(value) if cast == "integer" else float(value)
    return _plain(value)


def _plain(value: Any) -> Any:
    """JSON's types only, every field of a document there."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict | list) and len(value) > MAX_ITEMS:
        raise ValueError(f"a condition looks at lists of at most {MAX_ITEMS} items")
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


_SAMPLES: Mapping[str, Any] = {
    "null": None,
    "string": "",
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "object": {},
    "Document": {"id": "", "text": "", "source": "", "heading": "", "line": 1, "score": 1.0},
    "Message": {"role": "user", "content": ""},
    "Embedding": [1.0],
}


def _sample(port_type: PortType) -> Any:
    if port_type.fields:
        return {field.name: _sample(field.type) for field in port_type.fields}
    if port_type.item is None:
        return _SAMPLES[port_type.name]
    inner = _sample(port_type.item)
    return [inner] if port_type.name == "list" else inner


def _is_telling(port_type: PortType | None) -> bool:
    if port_type is None or port_type.name in ("any", "union"):
        return False
    if port_type.fields:
        return all(field.required and _is_telling(field.type) for field in port_type.fields)
    return port_type.item is None or _is_telling(port_type.item)


def _has_open_fields(port_type: PortType | None) -> bool:
    if port_type is None:
        return True
    return port_type.name in ("object", "Message") or (
        port_type.item is not None and _has_open_fields(port_type.item)
    )


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def _tokens(source: str) -> list[_Token]:
    """Raises `ConditionRefused` at the first character that CEL does not have here."""
    tokens: list[_Token] = []
    place = 0
    while place < len(source):
        after_point = bool(tokens) and tokens[-1].text == "."
        found = (None if after_point else _DASHED.match(source, place)) or _TOKEN.match(source, place)
        if found is None:
            char = source[place]
            raise ConditionRefused([_fault(f"{char} is not expected here", source, place, char)])
        if found.lastgroup != "skip":
            tokens.append(_Token(found.lastgroup or "", found[0], place))
        place = found.end()
    if not tokens:
        raise ConditionRefused([ConditionFault("a condition cannot be empty")])
    return tokens


def _fault(message: str, source: str, place: int, token: str, hint: str | None = None) -> ConditionFault:
    return ConditionFault(message, *_where(source, place, token), hint)


def _where(source: str, place: int, token: str) -> tuple[int, str, int]:
    """The line, the token and which of them on the line."""
    before = source[source.rfind("\n", 0, place) + 1 : place]
    return source.count("\n", 0, place) + 1, token, len(re.findall(word_pattern(token), before + token)) - 1


class _Scanner:
    """Finds references and what is not allowed, token by token; the grammar itself is left to CEL."""

    def __init__(self, tokens: list[_Token], source: str) -> None:
        self._tokens = tokens
        self._source = source
        self._brackets: list[str | None] = []
        """For each open bracket the name that a loop binds in it."""
        self._starts: list[tuple[int, _Token]] = []
        """Where each word begins in the new text, and the token that it came from."""
        self.words: list[str] = []
        self.mentions: dict[Ref, Mention] = {}
        self.faults: list[ConditionFault] = []

    def scan(self) -> None:
        place = 0
        while place < len(self._tokens) and len(self.faults) < MAX_FAULTS:
            token = self._tokens[place]
            self._note(token)
            if token.kind == "name" and token.text not in _WORDS and self._text(place - 1) != ".":
                place += self._name(place)
                continue
            if token.kind == "name" and self._text(place + 1) == "(":
                self._function(place)
            elif token.text in ("!", "-") and self._text(place - 1) == self._text(place - 2) == token.text:
                self._fault(f"{token.text} three times in a row", token)
            elif token.text == "." and not self._ends_value(place - 1):
                self._fault(". is not expected here", token)
            elif token.text == "{" and self._text(place - 1) != "in" and self._ends_value(place - 1):
                self._fault("{ is not expected here", token)
            elif token.text in _OPEN and token.kind == "sign":
                self._open(place)
            elif token.text in _CLOSE and token.kind == "sign" and self._brackets:
                self._brackets.pop()
            self.words.append(token.text)
            place += 1

    def syntax_fault(self, message: str) -> ConditionFault:
        """What CEL says of the new text, at its place in the old one."""
        found = _PLACE.search(message)
        if found is None:
            return ConditionFault("this is not CEL")
        column = int(found[1]) - 1
        token = next((token for start, token in reversed(self._starts) if start <= column), self._tokens[0])
        said = _FOUND.search(found[2])
        text = f"{token.text} is not expected here" if said else found[2][:120]
        if said and "<EOF>" in said[0]:
            text = "the condition ends too early"
        return _fault(text, self._source, token.start, token.text)

    def _name(self, place: int) -> int:
        """A name that begins a value; how many tokens it takes."""
        token = self._tokens[place]
        if self._text(place + 1) == "(":
            self._function(place)
        elif token.text in self._brackets:
            pass
        elif self._text(place + 1) == "." and self._is_port(place + 2):
            self._reference(place, 3)
            return 3
        elif token.text not in RESERVED:
            self._reference(place, 1)
            return 1
        else:
            hint = "write node.port, inputs.name or context.field"
            self._fault(f"{token.text} is no reference", token, hint)
        self.words.append(token.text)
        return 1

    def _is_port(self, place: int) -> bool:
        is_name = place < len(self._tokens) and self._tokens[place].kind == "name"
        return is_name and self._text(place + 1) != "("

    def _reference(self, place: int, width: int) -> None:
        """Takes in the reference that begins at a token; the port is its third, where it names one."""
        owner, last = self._tokens[place], self._tokens[place + width - 1]
        ref = Ref(owner.text, VALUE if last is owner else last.text)
        written = self._source[owner.start : last.start + len(last.text)]
        if (self._text(place - 2), self._text(place - 1), self._text(place + width)) == ("has", "(", ")"):
            self._fault(f"has({written}) always holds", owner, f"write {written} != null")
        self.mentions.setdefault(ref, Mention(ref, *_where(self._source, owner.start, written)))
        self.words.append(f"_{list(self.mentions).index(ref)}")

    def _function(self, place: int) -> None:
        token = self._tokens[place]
        if token.text not in FUNCTIONS | LOOPS:
            hint = nearest(token.text, FUNCTIONS | LOOPS)
            self._fault(f"unknown function {token.text}", token, hint)

    def _open(self, place: int) -> None:
        """A bracket; after the name of a loop it binds the name that follows."""
        bound: str | None = None
        if self._text(place - 1) in LOOPS and self._text(place - 2) == "." and self._text(place + 2) == ",":
            variable = self._tokens[place + 1]
            bound = variable.text
            if any(name is not None for name in self._brackets):
                self._fault("a loop inside a loop is not allowed", self._tokens[place - 1])
            if bound.startswith("_"):
                self._fault(f"the name {bound} begins with an underscore", variable)
        self._brackets.append(bound)
        if len(self._brackets) == MAX_DEPTH + 1:
            self._fault(f"nested more than {MAX_DEPTH} deep", self._tokens[place])

    def _ends_value(self, place: int) -> bool:
        if place < 0:
            return False
        token = self._tokens[place]
        return token.kind in ("name", "text") or token.text in _CLOSE

    def _text(self, place: int) -> str:
        return self._tokens[place].text if 0 <= place < len(self._tokens) else ""

    def _note(self, token: _Token) -> None:
        self._starts.append((sum(map(len, self.words)) + len(self.words), token))

    def _fault(self, message: str, token: _Token, hint: str | None = None) -> None:
        self.faults.append(_fault(message, self._source, token.start, token.text, hint))


def operands_of(condition: Condition | None) -> Iterator[Binding]:
    """What a condition looks at."""
    return iter(()) if condition is None else (operand.binding for operand in condition.operands)
