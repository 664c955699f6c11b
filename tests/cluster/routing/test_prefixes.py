"""The index of what replicas have read: cutting prompts, finding who has them, and forgetting."""

from __future__ import annotations

from cluster.messages import Generate, Message, Sampling
from cluster.routing.facts import ReplicaName
from cluster.routing.prefixes import BLOCK_CHARS, ENDS, MIN_BLOCKS, PrefixIndex, cut

A, B, C = ReplicaName("a"), ReplicaName("b"), ReplicaName("c")
RULES = "Answer from the documents alone. " * 40


def call(text: str, tenant: str = "t", **fields: object) -> Generate:
    messages = [Message("system", RULES), Message("user", text)]
    return Generate("id", "m", 10, 0.0, messages=messages, tenant=tenant, **fields)  # type: ignore[arg-type]


def alike(one: Generate, other: Generate) -> int:
    """Blocks that two prompts share."""
    pairs = zip(cut(one).blocks, cut(other).blocks, strict=False)
    return next((at for at, (left, right) in enumerate(pairs) if left != right), len(cut(one).blocks))


def test_prompts_that_begin_alike_share_their_first_blocks() -> None:
    shared = alike(call("A" * 2_000), call("B" * 2_000))
    assert shared == len(RULES) // BLOCK_CHARS[0]
    assert len(cut(call("A" * 2_000)).blocks) > shared


def test_a_longer_conversation_begins_with_all_blocks_of_the_shorter() -> None:
    first = call("question " * 200)
    assert first.messages is not None
    turns = [*first.messages, Message("assistant", "answer " * 100), Message("user", "more " * 100)]
    longer = Generate("id2", "m", 99, 1.0, messages=turns, tenant="t", session="s")
    assert alike(first, longer) == len(cut(first).blocks)
    assert len(cut(longer).blocks) > len(cut(first).blocks)


def test_tenants_models_and_tools_share_nothing() -> None:
    tools = Sampling(tools=[{"type": "function", "function": {"name": "f"}}])
    one = call("x" * 500)
    assert alike(one, call("x" * 500, tenant="other")) == 0
    assert alike(one, call("x" * 500, sampling=tools)) == 0
    assert alike(call("x" * 500, sampling=tools), call("x" * 500, sampling=tools)) == len(cut(one).blocks)


def test_short_prompts_have_no_blocks_and_very_long_ones_not_more_than_there_are() -> None:
    assert cut(Generate("id", "m", 1, 0.0, prompt="short")).blocks == []
    whole = cut(Generate("id", "m", 1, 0.0, prompt="x" * (ENDS[-1] + 5_000)))
    assert len(whole.blocks) == len(BLOCK_CHARS)
    assert whole.chars == ENDS[-1] + 5_000


def test_images_and_calls_of_tools_are_part_of_the_prompt() -> None:
    def parts(url: str) -> Generate:
        content = [{"type": "image_url", "image_url": {"url": url * 100}}]
        return Generate("id", "m", 1, 0.0, messages=[Message("user", content)])

    assert alike(parts("one"), parts("two")) == 0
    assert alike(parts("one"), parts("one")) > 0


def index(**room: int) -> PrefixIndex:
    made = PrefixIndex(**room)
    made.replicas([A, B, C])
    return made


def test_the_deepest_come_first() -> None:
    made = index()
    made.add(A, [1, 2])
    made.add(B, [1, 2, 3])
    made.add(C, [9])
    assert made.depths([1, 2, 3, 4], 8) == {B: 3, A: 2}
    assert list(made.depths([1, 2, 3, 4], 1)) == [B]
    assert made.depths([7], 8) == {}
    assert [made.depth(name, [1, 2, 3, 4]) for name in (A, B, C)] == [2, 3, 0]


def test_among_equals_the_turn_says_who() -> None:
    made = index()
    for name in (A, B, C):
        made.add(name, [1])
    assert [list(made.depths([1], 1, turn)) for turn in (0.0, 0.4, 0.9)] == [[A], [B], [C]]


def test_what_was_used_longest_ago_is_forgotten_first_and_ends_before_beginnings() -> None:
    made = index(max_blocks=0)  # each replica has MIN_BLOCKS
    made.add(A, range(MIN_BLOCKS))
    made.add(A, [0, 1])
    made.add(A, [1_000, 1_001])
    assert made.depth(A, [1_000, 1_001]) == 2
    assert made.depth(A, range(MIN_BLOCKS)) == MIN_BLOCKS - 2
    assert len(made) == MIN_BLOCKS


def test_an_engine_that_keeps_less_is_remembered_for_less() -> None:
    made = index()
    made.add(A, range(30))
    made.add(B, range(30))
    made.bound(A, 10)
    assert made.depth(A, range(30)) == 10
    assert made.depth(B, range(30)) == 30
    made.bound(ReplicaName("gone"), 1)


def test_what_replicas_had_that_are_gone_is_forgotten() -> None:
    made = index()
    made.add(A, [1])
    made.add(B, [1, 2])
    made.replicas([A, C])
    made.add(B, [5])
    assert made.depths([1, 2], 8) == {A: 1}
    assert made.depths([5], 8) == {}
    assert len(made) == 1
