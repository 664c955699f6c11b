"""What every part of the configuration has in common."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError


class Spec(BaseModel):
    """Base of every part of the configuration: frozen, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="wrap")
    @classmethod
    def _unknown_fields_have_a_hint(cls, given: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return check(given)
        except ValidationError as error:
            found = error.errors()
            if not any(_is_unknown_field(problem) for problem in found):
                raise
            told = [_with_hint(problem, cls.model_fields) for problem in found]
            raise ValidationError.from_exception_data(error.title, told) from error


def _is_unknown_field(problem: Any) -> bool:
    """Whether it is about a field of this very part, not of one inside it, which has said its own."""
    return problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1


def _with_hint(problem: Any, known: Iterable[str]) -> InitErrorDetails:
    said = problem["msg"]
    if _is_unknown_field(problem):
        near = difflib.get_close_matches(str(problem["loc"][0]), known, n=1)
        said = f"there is no such field; did you mean {near[0]!r}?" if near else "there is no such field"
    kind = PydanticCustomError(problem["type"], "{said}", {"said": said})
    return InitErrorDetails(type=kind, loc=problem["loc"], input=problem["input"])


Dollars = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=18)]
