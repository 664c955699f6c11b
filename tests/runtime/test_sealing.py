"""What is sealed opens in its own place, for its own tenant, and nowhere else."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from runtime.sealing import (
    EVERYONE,
    DataKeyError,
    SealBroken,
    Sealing,
    load_or_create_keys,
    parse_keys,
)

KEY, OLD_KEY = bytes(range(32)), bytes(32)
PLAIN = b"the patient's name is Jane"


@pytest.fixture
def sealing() -> Sealing:
    return Sealing([KEY], ["acme", "globex"])


def test_what_was_sealed_opens_in_its_place(sealing: Sealing) -> None:
    seal = sealing.of("acme")
    sealed = seal.close(PLAIN, "key", "field")
    assert seal.open(sealed, "key", "field") == PLAIN
    assert b"Jane" not in sealed
    assert seal.close(PLAIN, "key", "field") != sealed  # a nonce of its own
    assert seal.open(seal.close(b"", "key"), "key") == b""


@pytest.mark.parametrize(
    ("key", "field"), [("other", "field"), ("key", "other"), ("key\x00field", ""), ("", "")]
)
def test_it_does_not_open_elsewhere(sealing: Sealing, key: str, field: str) -> None:
    sealed = sealing.of("acme").close(PLAIN, "key", "field")
    with pytest.raises(SealBroken):
        sealing.of("acme").open(sealed, key, field)


def test_it_opens_for_no_other_tenant(sealing: Sealing) -> None:
    sealed = sealing.of("acme").close(PLAIN, "key", "field")
    with pytest.raises(SealBroken):
        sealing.of("globex").open(sealed, "key", "field")


def test_any_changed_byte_is_noticed(sealing: Sealing) -> None:
    seal = sealing.of("acme")
    sealed = seal.close(PLAIN, "key")
    for index in range(len(sealed)):
        changed = bytearray(sealed)
        changed[index] ^= 1
        with pytest.raises(SealBroken):
            seal.open(bytes(changed), "key")
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            seal.open(sealed[:length], "key")


def test_plain_values_of_a_sealed_tenant_are_refused(sealing: Sealing) -> None:
    with pytest.raises(SealBroken, match="not sealed"):
        sealing.of("acme").open(PLAIN, "key")


def test_others_are_left_as_they_are(sealing: Sealing) -> None:
    seal = sealing.of("initech")
    assert seal.close(PLAIN, "key") == PLAIN
    assert seal.open(PLAIN, "key") == PLAIN
    everyone = Sealing([KEY], [EVERYONE]).of("initech").close(PLAIN, "key")
    assert everyone != PLAIN
    assert seal.open(everyone, "key") == PLAIN  # once it was sealed, and the key is there


def test_keys_are_replaced_without_losing_what_is_there() -> None:
    sealed = Sealing([OLD_KEY], ["acme"]).of("acme").close(PLAIN, "key")
    seal = Sealing([KEY, OLD_KEY], ["acme"]).of("acme")
    assert seal.open(sealed, "key") == PLAIN
    again = seal.close(PLAIN, "key")
    assert Sealing([KEY], ["acme"]).of("acme").open(again, "key") == PLAIN
    for keys in ([KEY], []):
        with pytest.raises(SealBroken, match="key that is not here"):
            Sealing(keys).of("acme").open(sealed, "key")


def test_digests_tell_equal_values_and_nothing_else(sealing: Sealing) -> None:
    acme, globex, plain = sealing.of("acme"), sealing.of("globex"), sealing.of("initech")
    assert acme.digest(PLAIN) == acme.digest(PLAIN)
    assert len({seal.digest(PLAIN) for seal in (acme, globex, plain)}) == 3
    assert len(plain.digest(PLAIN)) == 16


def test_sealing_needs_keys_that_are_keys() -> None:
    with pytest.raises(DataKeyError, match="no data key"):
        Sealing([], ["acme"])
    with pytest.raises(DataKeyError, match="32 bytes"):
        Sealing([b"short"])


def test_keys_come_from_the_environment() -> None:
    text = ", ".join(base64.b64encode(key).decode() for key in (KEY, OLD_KEY))
    assert parse_keys(text) == [KEY, OLD_KEY]
    for wrong in ("", "short", "AAAA", text + ",", "ü" * 44):
        with pytest.raises(DataKeyError):
            parse_keys(wrong)


def test_a_key_is_made_once_and_older_ones_may_follow_it(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "data_key"
    (key,) = load_or_create_keys(path)
    assert load_or_create_keys(path) == [key]
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(KEY + key)
    assert load_or_create_keys(path) == [KEY, key]
    for broken in (b"", key[:-1]):
        path.write_bytes(broken)
        with pytest.raises(DataKeyError, match="no keys"):
            load_or_create_keys(path)
    path.chmod(0o644)
    with pytest.raises(DataKeyError, match="chmod 600"):
        load_or_create_keys(path)
