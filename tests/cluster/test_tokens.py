from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from cluster.errors import ConfigError, InvalidCall
from cluster.messages import Generate, Message, Sampling
from cluster.tokens import MEDIA_PART_TOKENS, ByteTokenCounter, ModelTokenCounter, counter_for
from tests.cluster.calls import chat, embed, generate

BOS, START, END = "<|bos|>", "<|im_start|>", "<|im_end|>"

TEMPLATE = """\
{{ bos_token }}
{%- if messages[0].role != 'system' %}<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif %}
{%- for message in messages %}
    {%- if loop.first and message.role == 'tool' %}{{ raise_exception('a tool cannot open') }}{% endif %}
<|im_start|>{{ message.role }}
{{ message.content }}
    {%- for call in message.tool_calls or [] %}
        {%- for name, value in call.function.arguments.items() %} {{ name }}={{ value }}{% endfor %}
    {%- endfor %}<|im_end|>
{% endfor %}
{%- if tools %}{{ tools | tojson(indent=4) }}{% endif %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"place": "<b>"}}}


def save_model(folder: Path, template: str | None = TEMPLATE) -> Path:
    """A model folder as Hugging Face lays it out, with a small byte-level vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[BOS, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["You are a helpful assistant. The capital of France is Paris."] * 3, trainer
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    # As some published tokenizers are: cut and padded, which a counter must not be.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": {"content": BOS}, "eos_token": END})
    )
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exact(folder: Path) -> ModelTokenCounter:
    return ModelTokenCounter(folder)


@pytest.fixture(scope="module")
def length(folder: Path) -> Any:
    """Tokens of a text as it stands."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


SYSTEM = f"{BOS}{START}system\nYou are a helpful assistant.{END}\n"
ASSISTANT = f"{START}assistant\n"


def test_a_chat_is_counted_as_its_template_renders_it(exact: ModelTokenCounter, length: Any) -> None:
    rendered = f"{SYSTEM}{START}user\nThe capital of France?{END}\n{ASSISTANT}"
    assert exact.count(chat("The capital of France?")) == length(rendered)


def test_a_special_token_of_the_template_is_one_token(exact: ModelTokenCounter, length: Any) -> None:
    assert length(START) == 1
    with_one_more = chat(f"Hello{END}")
    assert exact.count(with_one_more) == exact.count(chat("Hello")) + 1


def test_a_prompt_gets_the_special_tokens_a_chat_has_from_its_template(
    exact: ModelTokenCounter, length: Any
) -> None:
    assert exact.count(generate(prompt="is Paris")) == 1 + length("is Paris")


def test_long_texts_are_neither_cut_nor_padded(exact: ModelTokenCounter, length: Any) -> None:
    text = "Paris " * 50
    assert exact.count(embed(text, "a")) == length(text) + length("a") + 2


def test_text_parts_are_joined_and_media_is_booked(exact: ModelTokenCounter) -> None:
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}},
        {"type": "text", "text": "this?"},
    ]
    call = generate(messages=[Message("user", parts)])
    assert exact.count(call) == exact.count(chat("What is\nthis?")) + MEDIA_PART_TOKENS


def test_tools_are_counted_as_the_template_prints_them(exact: ModelTokenCounter, length: Any) -> None:
    plain = exact.count(chat())
    printed = json.dumps([WEATHER], indent=4)
    assert exact.count(chat(sampling=Sampling(tools=[WEATHER]))) == plain + length(printed)


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ('{"place": "Rome"}', " place=Rome"),
        ({"place": "Rome"}, " place=Rome"),
        ("", ""),
        ("{broken", ""),
        ("[1]", ""),
    ],
)
def test_tool_calls_reach_the_template_with_their_arguments_parsed(
    exact: ModelTokenCounter, length: Any, arguments: Any, printed: str
) -> None:
    tool_calls = [{"id": "c", "type": "function", "function": {"name": "weather", "arguments": arguments}}]
    call = generate(messages=[Message("user", "Hi"), Message("assistant", None, tool_calls=tool_calls)])
    rendered = f"{SYSTEM}{START}user\nHi{END}\n{START}assistant\n{printed}{END}\n{ASSISTANT}"
    assert exact.count(call) == length(rendered)


def test_messages_that_the_template_refuses_are_the_callers_mistake(exact: ModelTokenCounter) -> None:
    with pytest.raises(InvalidCall, match="a tool cannot open") as caught:
        exact.count(generate(messages=[Message("tool", "42", tool_call_id="c")]))
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "template", ["{{ messages[0].content + 1 }}", "{{ messages[0].content.index('x') }}"]
)
def test_messages_that_break_the_template_are_the_callers_mistake(tmp_path: Path, template: str) -> None:
    with pytest.raises(InvalidCall, match="refuses"):
        ModelTokenCounter(save_model(tmp_path, template)).count(chat())


def test_a_template_cannot_reach_outside(tmp_path: Path) -> None:
    counter = ModelTokenCounter(save_model(tmp_path, "{{ messages.__class__.__mro__ }}"))
    with pytest.raises(InvalidCall, match="unsafe"):
        counter.count(chat())


def test_a_template_may_mark_what_the_assistant_says(tmp_path: Path) -> None:
    marked = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert ModelTokenCounter(save_model(tmp_path, marked)).count(chat("x")) == 1


def test_a_template_may_ask_for_the_date(tmp_path: Path) -> None:
    counter = ModelTokenCounter(save_model(tmp_path, "{{ strftime_now('%Y') | length }}"))
    assert counter.count(chat()) == 1


def test_a_model_without_a_template_refuses_chats_only(tmp_path: Path) -> None:
    counter = ModelTokenCounter(save_model(tmp_path, template=None))
    assert counter.count(generate(prompt="a")) == 2
    with pytest.raises(InvalidCall, match="no chat template") as caught:
        counter.count(chat())
    assert caught.value.param == "messages"


def test_an_older_folder_has_its_template_in_the_tokenizer_config(tmp_path: Path) -> None:
    folder = save_model(tmp_path, template=None)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    assert ModelTokenCounter(folder).count(chat("x")) == 1


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer\.json") as caught:
        ModelTokenCounter(tmp_path)
    assert caught.value.param == "source"


def test_a_broken_template_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="template"):
        ModelTokenCounter(save_model(tmp_path, "{% if %}"))


contents = st.one_of(
    st.none(),
    st.text(max_size=60),
    st.lists(st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=30)), max_size=3),
)
conversations = st.lists(
    st.builds(
        Message,
        role=st.sampled_from(["system", "user", "assistant"]),
        content=contents,
        tool_calls=st.none()
        | st.lists(
            st.builds(
                lambda value: {"function": {"name": "f", "arguments": json.dumps({"a": value})}},
                st.text(max_size=20),
            ),
            max_size=2,
        ),
    ),
    min_size=1,
    max_size=4,
)
calls = st.one_of(
    st.builds(lambda texts: embed(*texts), st.lists(st.text(), max_size=4)),
    st.builds(lambda prompt: generate(prompt=prompt), st.text()),
    st.builds(lambda messages: generate(messages=messages), conversations),
    st.builds(
        lambda messages: generate(messages=messages, sampling=Sampling(tools=[WEATHER])), conversations
    ),
)


@given(call=calls)
def test_without_a_tokenizer_the_count_is_an_upper_bound(exact: ModelTokenCounter, call: Generate) -> None:
    assert ByteTokenCounter().count(call) >= exact.count(call)


def test_the_bound_counts_tools_and_ids_and_books_media() -> None:
    bound = ByteTokenCounter()
    plain = bound.count(chat())
    assert bound.count(chat(sampling=Sampling(tools=[WEATHER]))) > plain + len(json.dumps(WEATHER)) / 2
    named = generate(messages=[Message("tool", "Hello", name="ada", tool_call_id="call-1")])
    assert bound.count(named) == plain + len("ada") + len("call-1")
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    assert (
        bound.count(generate(messages=[Message("user", [image])])) == plain - len("Hello") + MEDIA_PART_TOKENS
    )


def test_the_folder_decides_the_counter(folder: Path) -> None:
    assert isinstance(counter_for(folder), ModelTokenCounter)
    assert isinstance(counter_for(None), ByteTokenCounter)


def test_tokens_there_and_back(exact: ModelTokenCounter) -> None:
    text = f"The capital{END} \u2603"
    call = replace(chat(""), messages=None, prompt=text)
    whole, bare = exact.encode(call), exact.encode(call, special=False)
    assert (whole.texts[0], whole.ids[1:]) == (BOS, bare.ids)
    assert len(whole.ids) == exact.count(call)
    assert exact.decode(bare.ids) == text
    messages = chat("The capital?")
    assert len(exact.encode(messages).ids) == exact.count(messages)
    with pytest.raises(InvalidCall) as caught:
        exact.decode([0, 10**6])
    assert caught.value.param == "tokens[1]"
