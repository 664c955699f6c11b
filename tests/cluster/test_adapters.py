from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster import adapters
from cluster.adapters import adapters_of, check_files, host_of, takes_adapters, with_bases
from cluster.config import FakeSpec, LoraSpec, OnnxSpec, TimePrice, TokenPrice, VllmSpec
from cluster.errors import ConfigError

PRICE = TokenPrice(input_per_million=1)
BASE = VllmSpec(
    name="qwen",
    engine="vllm",
    source="Qwen/Qwen3-8B",
    max_context=4096,
    price=TimePrice(per_hour=2),
    loras={"max_rank": 16},
)


def lora(**fields: Any) -> LoraSpec:
    return LoraSpec(**({"name": "legal", "engine": "lora", "base": "qwen", "source": "org/legal"} | fields))


def test_an_adapter_has_the_context_and_price_of_its_base() -> None:
    base, adapter = with_bases([BASE, lora()])
    assert base == BASE
    assert adapter == lora(max_context=4096, price=BASE.price)


def test_what_it_says_itself_counts() -> None:
    given = lora(max_context=1024, price=PRICE, default_max_tokens=7)
    assert with_bases([given, BASE]) == [given, BASE]


def test_free_can_be_said() -> None:
    assert with_bases([BASE, lora(price=None)])[1].price is None


@pytest.mark.parametrize(
    ("others", "fields", "said"),
    [
        ([BASE], {"base": "qwn"}, "no model 'qwn'; there is qwen"),
        ([], {}, "none that takes adapters"),
        ([BASE.model_copy(update={"loras": None})], {}, "give it `loras"),
        ([OnnxSpec(name="qwen", engine="onnx", source="x")], {}, "takes no adapters"),
        ([BASE], {"max_context": 8192}, r"max_context \(8192\) is more than that of qwen, 4096"),
        ([lora(name="qwen")], {}, "takes no adapters"),
    ],
)
def test_a_base_that_is_none_is_refused(others: list[Any], fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        with_bases([*others, lora(**fields)])


def test_whose_replicas_it_runs_on() -> None:
    fake = FakeSpec(name="fake", engine="fake")
    specs = [BASE, lora(), lora(name="medical"), fake, lora(name="other", base="fake")]
    assert host_of(specs[2], specs) == BASE
    assert host_of(fake, specs) == fake
    assert [spec.name for spec in adapters_of(BASE, specs)] == ["legal", "medical"]
    assert [spec.name for spec in adapters_of(fake, specs)] == ["other"]


def test_who_takes_adapters() -> None:
    assert takes_adapters(BASE)
    assert takes_adapters(FakeSpec(name="f", engine="fake"))
    assert not takes_adapters(FakeSpec(name="f", engine="fake", task="embed"))
    assert not takes_adapters(lora())


def test_files_that_are_here_are_looked_at(tmp_path: Path) -> None:
    adapter = lora(source=str(tmp_path))
    file = tmp_path / "adapter_config.json"
    with pytest.raises(ConfigError, match=r"legal has no .*adapter_config\.json"):
        check_files(adapter, BASE)
    for text, said in (("{", "not JSON"), ("[]", "no JSON object"), ("{}", "rank None")):
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            check_files(adapter, BASE)
    file.write_text(json.dumps({"r": 32}))
    with pytest.raises(ConfigError, match=r"rank 32, and loras\.max_rank of qwen is 16"):
        check_files(adapter, BASE)
    file.write_text(json.dumps({"r": 16}))
    check_files(adapter, BASE)
    file.write_text(" " * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="larger than"):
        check_files(adapter, BASE)


def test_files_that_are_somewhere_else_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[Path] = []

    def look(name: str, file: Path) -> dict[str, Any]:
        looked_at.append(file)
        return {"r": 1}

    monkeypatch.setattr(adapters, "_config", look)
    check_files(lora(), BASE)
    check_files(lora(source=str(tmp_path), base="fake"), FakeSpec(name="fake", engine="fake"))
    assert looked_at == []
    check_files(lora(source=str(tmp_path)), BASE)
    assert looked_at == [tmp_path / "adapter_config.json"]
