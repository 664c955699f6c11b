"""Replicas as a person writes them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cluster.config import ModelSpec, ReplicatedSpec

MODEL: TypeAdapter[ReplicatedSpec] = TypeAdapter(ModelSpec)


def load(replicas: Any, **fields: Any) -> ReplicatedSpec:
    return MODEL.validate_python({"name": "m", "engine": "fake", "replicas": replicas} | fields)


def test_a_number_is_fixed() -> None:
    spec = load(3)
    assert (spec.scales, spec.least_replicas, spec.most_replicas) == (False, 3, 3)


def test_a_range_is_not() -> None:
    spec = load({"max": 4})
    assert (spec.scales, spec.least_replicas, spec.most_replicas) == (True, 0, 4)


@pytest.mark.parametrize(
    ("fields", "at_once"),
    [
        ({"max_num_seqs": 32}, 32),
        ({"task": "embed"}, 1),
        ({"replicas": {"max": 2, "at_once": 5}}, 5),
        ({"engine": "vllm", "source": "x/y", "max_num_seqs": 12}, 12),
        ({"engine": "onnx", "source": "x"}, 1),
    ],
)
def test_what_one_replica_does_at_once(fields: dict[str, Any], at_once: int) -> None:
    assert load(fields.pop("replicas", 1), **fields).at_once == at_once


@pytest.mark.parametrize(
    ("replicas", "said"),
    [
        ({"min": 3, "max": 2}, r"min \(3\) must be at most max \(2\)"),
        ({"min": 1}, "Field required"),
        ({"min": -1, "max": 2}, "greater than or equal to 0"),
        ({"max": 2000}, "less than or equal to 1024"),
        ({"max": 2, "at_onc": 1}, "did you mean 'at_once'"),
        (0, "greater than or equal to 1"),
    ],
)
def test_a_mistake_is_named(replicas: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        load(replicas)
