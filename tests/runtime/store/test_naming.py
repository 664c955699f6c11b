"""Names of keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.store.errors import InvalidName
from runtime.store.naming import check_name, tenant_key

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)


def test_a_tenant_is_the_hash_tag_of_its_keys() -> None:
    assert tenant_key("acme", "quota", "open") == "cgh:{acme}:quota:open"


@given(st.lists(names, min_size=2, max_size=4), st.lists(names, min_size=2, max_size=4))
def test_no_two_owners_share_a_key(one: list[str], other: list[str]) -> None:
    assert (tenant_key(*one) == tenant_key(*other)) == (one == other)


@given(st.text(max_size=10))
def test_what_is_accepted_holds_nothing_that_parts_keys(name: str) -> None:
    try:
        assert check_name("tenant", name) == name
    except InvalidName:
        return
    assert name.isascii()
    assert not set(name) & set("{}:* \n\0/\\")
    assert name


def test_the_refusal_says_what_is_right_and_quotes_little() -> None:
    with pytest.raises(InvalidName, match="a contextId is 1 to 128 ASCII letters, digits") as caught:
        check_name("contextId", "!" * 10_000)
    assert len(str(caught.value)) < 200
