"""Functions of Python that pipelines may name, and what their type hints say of their ports.

    @function(effects="pure")
    def shout(text: str, times: int = 1) -> str:
        return text.upper() + "!" * times

    loud: {function: my_package.text:shout, with: {text: ${inputs.text}}}

A function that changes something may take a parameter of type `IdempotencyKey`: it is no input, and gets what
is the same each time this node of this run is tried, by whichever process.

Only what is marked so can be named, so that a pipeline reaches nothing else of what can be imported. Where
the function is called in Python with values, the mark changes nothing; with references of a pipeline that is
being traced (`graphs.python`), the call becomes a node.

A generator gives a list that others can read while it is made, and an async function that takes an
`AsyncIterator` reads one:

    @function(effects="pure")
    async def numbered(lines: AsyncIterator[str]) -> AsyncIterator[str]:
        number = 0
        async for line in lines:
            yield f"{number}: {line}"
            number += 1

One that is marked with `batch=True` takes lists and returns a list, and does for many calls of its node at
once what they ask one by one. The ports of the node have the types of the items:

    @function(effects="pure", batch=True)
    def sizes(texts: list[str]) -> list[int]:
        return model.sizes(texts)
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple, NewType, TypeVar, cast, get_type_hints, is_typeddict, overload

import msgspec
from msgspec import UNSET

from graphs.errors import GraphError, nearest
from graphs.hints import fields_of, item_hint, listed_hint, port_of, type_of_hint, without_errors
from graphs.nodes.function import Function
from graphs.nodes.spec import Effects
from graphs.ports import Port, PortType, faults, list_of, optional, stream_of
from graphs.tracing import holds_traced, recorder

IdempotencyKey = NewType("IdempotencyKey", str)
"""What a function gives to whatever it changes, so that being called twice changes it once."""
NO_KEY = IdempotencyKey("")
"""Default of such a parameter: for whoever calls the function outside of a pipeline."""

VALUE = "value"
"""The output of a function that has one."""
MAX_REASON_CHARS = 200

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_MARK = "__pipeline_function__"


class Mark(NamedTuple):
    """What the author says of a function."""

    effects: Effects
    cheap: bool
    """Whether it takes microseconds and waits for nothing, so that it needs no thread."""
    num_cpus: float | None
    """Cores of a process of its own; None where it runs in the runner."""
    batch: bool = False
    """Whether it takes and gives lists: items of several calls, in their order."""


class Signature(NamedTuple):
    """What a function takes and gives."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, PortType]
    in_fields: bool
    """Whether the outputs are the fields of what it returns."""
    mark: Mark
    hints: Mapping[str, Any]
    """By input. Of one that takes batches those of an item."""
    followed: Mapping[str, Any]
    """By input that is read while it is made: the hint of an item."""
    yields: bool
    """Whether its output is a list of what it yields."""
    key: str | None = None
    """The parameter that takes an idempotency key."""


class FunctionRefused(GraphError):
    """No function of pipelines. `message` says why, `token` names the part at fault, `hint` what to do."""

    def __init__(self, message: str, token: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.token = token
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        return FunctionRefused, (self.message, self.token, self.hint)


@overload
def function(call: FunctionT, /) -> FunctionT: ...
@overload
def function(
    *, effects: Effects = ..., cheap: bool = ..., num_cpus: float | None = ..., batch: bool = ...
) -> Callable[[FunctionT], FunctionT]: ...
def function(
    call: Any = None,
    /,
    *,
    effects: Effects = "effectful",
    cheap: bool = False,
    num_cpus: float | None = None,
    batch: bool = False,
) -> Any:
    """Marks a function as one that pipelines may name.

    Args:
        effects: `pure` if the same inputs always give the same outputs and nothing else happens; `idempotent`
            if it may be run again though answers may differ; else it runs exactly as often as the graph says.
        cheap: whether it takes microseconds and waits for nothing.
        num_cpus: cores of a process of its own that it is worth: for work in Python that would hold up the
            runner. Chains of such functions are joined without the runner in between.
        batch: whether it takes a list of each input and returns a list of as many results: calls of all runs
            in a runner meet in its batches. A result that is an `Exception` fails its call alone.
    """
    if num_cpus is not None and (cheap or num_cpus <= 0):
        raise ValueError("num_cpus is more than 0, and not for a function that is cheap")
    if batch and (cheap or num_cpus is not None):
        raise ValueError("batch is not for a function that is cheap or has num_cpus: it waits, in the runner")

    def mark(marked: FunctionT) -> FunctionT:
        setattr(marked, _MARK, Mark(effects, cheap, num_cpus, batch))

        @functools.wraps(marked)
        def called(*positional: Any, **named: Any) -> Any:
            if not holds_traced((positional, named)):
                return marked(*positional, **named)
            given = inspect.signature(marked).bind(*positional, **named)
            return recorder().record(_spec_from(marked), given.arguments)

        return cast("FunctionT", called)

    return mark if call is None else mark(call)


def mark_of(call: object) -> Mark | None:
    """The mark of a function; None of anything else."""
    mark = getattr(call, _MARK, None) if inspect.isfunction(call) else None
    return mark if isinstance(mark, Mark) else None


def find(name: str, modules: Sequence[str] | None = None) -> Callable[..., Any]:
    """The marked function that `package.module:function` names.

    Args:
        modules: those that may be imported, with all that is inside them; None for any.

    Raises `FunctionRefused`. A module that is not allowed is not imported.
    """
    module_name, _, attribute = name.partition(":")
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise FunctionRefused("a function is named as package.module:function", name)
    if modules is not None and not any(f"{module_name}.".startswith(f"{each}.") for each in modules):
        allowed = f"allowed: {', '.join(modules)}" if modules else "no functions may be named here"
        raise FunctionRefused(f"functions of {module_name} may not be named here", module_name, allowed)
    module = _import(module_name)
    call = getattr(module, attribute, None)
    if call is None:
        hint = nearest(attribute, [key for key, value in vars(module).items() if mark_of(value)])
        raise FunctionRefused(f"{module_name} has no function {attribute}", attribute, hint)
    if mark_of(call) is None:
        hint = "put @graphs.functions.function above a function that they may"
        raise FunctionRefused(f"{name} is not marked as one that pipelines may name", attribute, hint)
    found: Callable[..., Any] = inspect.unwrap(call)
    return found


def signature_of(call: Callable[..., Any]) -> Signature:
    """What a marked function takes and gives. Raises `FunctionRefused` where its hints do not say it."""
    call = inspect.unwrap(call)
    mark, name = mark_of(call), call.__name__
    if mark is None:
        raise FunctionRefused(f"{name} is not marked as one that pipelines may name", name)
    awaits = inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call)
    yields = inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call)
    if mark.num_cpus is not None and (awaits or yields):
        does = "awaits" if awaits else "yields"
        raise FunctionRefused(f"{name} {does}, a function in a process of its own cannot", name)
    try:
        hints = get_type_hints(call, include_extras=True)
    except (NameError, TypeError) as error:
        raise FunctionRefused(f"the type hints of {name} cannot be read: {_reason(error)}", name) from error
    parameters = dict(inspect.signature(call).parameters)
    if mark.batch:
        hints = _of_an_item(name, parameters, hints, yields=yields)
    items = {name: item_hint(hint) for name, hint in hints.items()}
    followed = {name: item for name, item in items.items() if item is not None and name != "return"}
    if followed and not awaits:
        first, hint = next(iter(followed)), "take a list, or write async def and AsyncIterator"
        raise FunctionRefused(f"{name} cannot wait for the items of {first}: it is not async", name, hint)
    key = _key(name, mark, parameters, hints)
    inputs = {each: _input(name, parameter, hints) for each, parameter in parameters.items()}
    if "return" not in hints:
        raise FunctionRefused(f"{name} has no hint of what it returns", name, "as -> str")
    returns = hints["return"]
    in_fields = not yields and (is_typeddict(returns) or is_named_tuple(returns))
    if yields:
        outputs: Mapping[str, PortType] = {VALUE: stream_of(list_of(_yielded(name, returns)))}
    else:
        outputs = _fields(name, returns) if in_fields else {VALUE: _output(name, returns)}
    plain = {each: hints[each] for each in inputs}
    return Signature(inputs, outputs, in_fields, mark, plain, followed, yields, key)


def _key(
    name: str, mark: Mark, parameters: dict[str, inspect.Parameter], hints: Mapping[str, Any]
) -> str | None:
    """The parameter that takes an idempotency key, which is no input and is taken out of `parameters`."""
    keyed = [each for each in parameters if hints.get(each) is IdempotencyKey]
    for each in keyed:
        if mark.effects != "effectful" or parameters.pop(each).default is inspect.Parameter.empty:
            hint = f"as {each}: IdempotencyKey = NO_KEY, of a function that is effectful"
            raise FunctionRefused(f"{name} cannot take the idempotency key {each} like this", name, hint)
    return keyed[0] if keyed else None


def _of_an_item(
    name: str, parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any], *, yields: bool
) -> dict[str, Any]:
    """The hints of one item, of a function that takes batches of them."""
    if yields or not parameters:
        wrong = "yields" if yields else "takes nothing"
        raise FunctionRefused(f"{name} {wrong}, so that it cannot take batches", name)
    found: dict[str, Any] = {}
    for each, hint in hints.items():
        item = listed_hint(hint)
        if item is None or item_hint(item) is not None:
            message = f"{name} takes batches, its hint of {each} is no list of items"
            raise FunctionRefused(message, name, "as list[str], for items that are texts")
        given = each in parameters and parameters[each].default is not inspect.Parameter.empty
        if given and item is not IdempotencyKey:
            raise FunctionRefused(f"{name} takes batches, in which {each} has no default", name)
        found[each] = without_errors(item) if each == "return" else item
    return found


def spec_of(name: str, modules: Sequence[str] | None = None) -> Function:
    """The node that calls what `find` finds. Raises `FunctionRefused`."""
    return _spec(name, signature_of(find(name, modules)))


def _spec_from(call: Callable[..., Any]) -> Function:
    """The node that calls a function at hand. Raises `FunctionRefused`."""
    if "." in call.__qualname__:
        raise FunctionRefused(f"{call.__qualname__} is not at the top of its module", call.__name__)
    return _spec(f"{call.__module__}:{call.__name__}", signature_of(call))


def _spec(name: str, signature: Signature) -> Function:
    mark = signature.mark
    return Function(name, signature.inputs, signature.outputs, mark.effects, mark.num_cpus, mark.batch)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            hint = "looked for in the working directory and among what is installed"
            raise FunctionRefused(f"there is no module {error.name}", name, hint) from error
        raise FunctionRefused(f"{name} cannot be imported: {_reason(error)}", name) from error
    except (Exception, SystemExit) as error:  # whatever the code of a module does
        raise FunctionRefused(f"{name} cannot be imported: {_reason(error)}", name) from error


def _input(name: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Port:
    key = parameter.name
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
        raise FunctionRefused(f"{name} takes {parameter}, inputs have names", name)
    if key not in hints or not key.isascii():
        raise FunctionRefused(f"the input {key} of {name} has no type hint", name, f"as {key}: str")
    default = UNSET if parameter.default is parameter.empty else parameter.default
    item = item_hint(hints[key])
    try:
        if item is None:
            port = port_of(hints[key], default)
        else:
            port = Port(stream_of(list_of(type_of_hint(item))), default)
        _fits(None, hints[key] if item is None else item)
        wrong = [] if default is UNSET else faults(port, msgspec.to_builtins(default))
    except TypeError as error:
        raise FunctionRefused(f"the input {key} of {name}: {_reason(error)}", name) from error
    if wrong:
        raise FunctionRefused(f"the default of {key} of {name} does not fit: {wrong[0]}", name)
    return port


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value can be converted to a hint. Raises `TypeError` for a hint that nothing can be."""
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError:
        return False
    return True


def _output(name: str, hint: Any) -> PortType:
    try:
        return type_of_hint(hint)
    except TypeError as error:
        raise FunctionRefused(f"what {name} returns: {_reason(error)}", name) from error


def _yielded(name: str, hint: Any) -> PortType:
    """The type of what a generator yields."""
    item = item_hint(hint)
    if item is None:
        raise FunctionRefused(f"{name} yields, so it needs a hint of what", name, "as -> AsyncIterator[str]")
    return _output(name, item)


def _fields(name: str, hint: Any) -> dict[str, PortType]:
    """A port for each field of a NamedTuple or TypedDict."""
    try:
        fields = fields_of(hint)
    except (NameError, TypeError) as error:
        raise FunctionRefused(f"what {name} returns: {_reason(error)}", name) from error
    if not fields:
        raise FunctionRefused(f"what {name} returns has no fields", name)
    return {field.name: field.type if field.required else optional(field.type) for field in fields}


def is_named_tuple(hint: Any) -> bool:
    """Whether it is the class of a NamedTuple."""
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def _reason(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON_CHARS]
