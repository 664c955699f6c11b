import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.sentences import MAX_SENTENCE_CHARS, Sentences, split
from tests.growth import times_as_long

TEXTS = st.text(alphabet=st.sampled_from("aB1 .!?…。\n\t\"')-e.gDrU.S."), max_size=80) | st.text(max_size=60)


@pytest.mark.parametrize(
    "sentences",
    [
        ["One. ", "Two! ", "Three? ", "Four"],
        ["Dr. Ngo paid 3.50 euros. ", "He left."],
        ["See Fig. 3 and e.g. No. 5 of the U.S. Army vs. Rome. ", "Then stop."],
        ["J. R. Smith came at 5. ", "He sat."],
        ['"Why?" he asked. ', '"Because." ', "(It was so.) ", "Fine."],
        ["He said: “No.” ", "She left."],
        ["Wait... what? ", "Wait… ", "What?!"],
        ["First line\n", "Second line\n\n", "and a paragraph"],
        ["A line that\ngoes on. ", "Next."],
        ["To do:\n", "- eat\n", "- sleep\n", "1. Rise. ", "Shine.\n", "2. Work"],
        ["これは文です。", "次です。」 ", "終わり"],
        ["\n\n  It starts late. ", "So?"],
        ["**Bold.** ", "Plain."],
        ["Version 1.2.3 is out at example.com/a.b. ", "Get it."],
        ["   "],
    ],
)
def test_sentences_are_found(sentences):
    assert split("".join(sentences)) == sentences


def test_nothing_has_no_sentences():
    assert split("") == []


@given(TEXTS, st.integers(1, 30))
def test_pieces_make_the_text_and_keep_to_the_bound(text, longest):
    pieces = split(text, longest)
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= longest for piece in pieces)


@given(st.lists(TEXTS, max_size=8), st.integers(1, 30))
def test_it_does_not_matter_in_which_pieces_a_text_comes(parts, longest):
    sentences = Sentences(longest)
    found = [each for part in parts for each in sentences.feed(part)] + sentences.end()
    assert found == split("".join(parts), longest)


def test_a_sentence_is_given_when_the_next_one_begins():
    sentences = Sentences()
    assert sentences.feed("It rains. ") == []
    assert sentences.feed("  ") == []
    assert sentences.feed("So") == ["It rains.   "]
    assert sentences.end() == ["So"]


def test_what_never_ends_is_cut_between_words():
    text = "word " * MAX_SENTENCE_CHARS
    pieces = split(text)
    assert {len(piece) for piece in pieces[:-1]} == {MAX_SENTENCE_CHARS}
    assert all(piece.startswith("word") for piece in pieces)
    assert [len(piece) for piece in split("x" * 2500)] == [1000, 1000, 500]


@pytest.mark.parametrize("text", [".", " ", "\n", '"', ".)", ". ", "A. ", "。", "1."])
def test_hostile_texts_take_linear_time(text):
    assert times_as_long(lambda times: Sentences().feed(text * times), 4_000, 16_000) < 10
    sentences, cut = Sentences(), 0
    for fed in range(1, 1_200):
        cut += sum(map(len, sentences.feed(text)))
        assert fed * len(text) - cut <= MAX_SENTENCE_CHARS + len(text), (
            "each piece has all that is kept read again"
        )
