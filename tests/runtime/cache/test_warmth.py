"""What engines are taken to remember."""

from runtime.cache import warmth
from runtime.cache.warmth import KEPT_S, Prefix, Warmth

ACME = Prefix("m", "acme", "1")


def test_a_prefix_is_warm_for_a_while_after_it_was_read_last():
    now = [0.0]
    ours = Warmth(lambda: now[0])
    assert not ours.has(ACME)
    ours.note(ACME)
    now[0] = KEPT_S - 1
    assert ours.has(ACME)
    ours.note(ACME)
    now[0] = 2 * KEPT_S - 2
    assert ours.has(ACME)
    now[0] = 2 * KEPT_S
    assert not ours.has(ACME)


def test_tenants_and_models_share_none():
    ours = Warmth()
    ours.note(ACME)
    assert not any(ours.has(each) for each in (ACME._replace(tenant="other"), ACME._replace(model="n")))


def test_what_was_read_longest_ago_is_forgotten_first(monkeypatch):
    monkeypatch.setattr(warmth, "MAX_PREFIXES", 2)
    ours = Warmth()
    for digest in ("1", "2", "1", "3"):
        ours.note(ACME._replace(digest=digest))
    assert [ours.has(ACME._replace(digest=each)) for each in "123"] == [True, False, True]
