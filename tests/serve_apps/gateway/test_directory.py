"""Organisations and teams on both kinds of store."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from runtime.store.client import Store
from runtime.store.errors import InvalidName
from serve_apps.gateway import directory as directory_module
from serve_apps.gateway.directory import (
    AlreadyThere,
    Directory,
    NotThere,
    Organisation,
    Standing,
    Team,
    TooManyTeams,
)
from serve_apps.gateway.limits import UNLIMITED, Allowance, Limits
from tests.serve_apps.clock import NOW, Clock

SMALL = Allowance(Limits(requests_per_minute=5, money_per_month=10**9), {"m": Limits(tokens_per_day=7)})


@pytest.fixture
def directory(store: Store, clock: Clock) -> Directory:
    return Directory(store, clock=clock, monotonic=clock)


async def test_an_organisation_is_created_changed_and_listed(directory: Directory) -> None:
    made = await directory.create_organisation("acme", "Acme Ltd", allowance=SMALL)
    assert made == Organisation("acme", "Acme Ltd", NOW, SMALL)
    assert await directory.organisation("acme") == made
    before, after = await directory.change_organisation("acme", lambda each: replace(each, suspended=True))
    assert (before, after) == (made, replace(made, suspended=True))
    assert await directory.organisation("acme") == after
    assert await directory.organisation("other") is None
    assert [each async for each in directory.organisations()] == [after]


async def test_a_team_belongs_to_one_organisation(directory: Directory) -> None:
    research = await directory.create_team("acme", "research", "Research", allowance=SMALL)
    await directory.create_team("acme", "legal", "Legal")
    await directory.create_team("rival", "research", "Spies")
    assert research == Team("acme", "research", "Research", NOW, SMALL)
    assert [team.team for team in await directory.teams("acme")] == ["legal", "research"]
    assert [team.name for team in await directory.teams("rival")] == ["Spies"]
    await directory.change_team("acme", "research", lambda each: replace(each, name="R&D"))
    assert (await directory.team("acme", "research")) == replace(research, name="R&D")
    assert (await directory.team("rival", "research")).name == "Spies"  # type: ignore[union-attr]


async def test_an_id_is_given_once(directory: Directory) -> None:
    await directory.create_organisation("acme", "one")
    await directory.create_team("acme", "a", "one")
    for _ in range(2):
        with pytest.raises(AlreadyThere, match="acme"):
            await directory.create_organisation("acme", "two")
        with pytest.raises(AlreadyThere, match="'a'"):
            await directory.create_team("acme", "a", "two")
        if await directory.organisation("acme") is not None:
            assert (await directory.delete_organisation("acme")).name == "one"
            assert (await directory.delete_team("acme", "a")).name == "one"


async def test_what_is_deleted_is_gone_and_its_callers_are_refused(directory: Directory) -> None:
    await directory.create_organisation("acme", "one")
    await directory.create_team("acme", "a", "one", allowance=SMALL)
    await directory.delete_team("acme", "a")
    assert await directory.team("acme", "a") is None
    assert await directory.teams("acme") == []
    assert (await directory.standing("acme", "a")).barred == "team_deleted"
    await directory.delete_organisation("acme")
    assert await directory.organisation("acme") is None
    assert [each async for each in directory.organisations()] == []
    assert (await directory.standing("acme", "a")).barred == "organisation_deleted"
    with pytest.raises(NotThere):
        await directory.delete_organisation("acme")
    with pytest.raises(NotThere):
        await directory.change_team("acme", "a", lambda each: replace(each, deleted=None))


async def test_a_standing_has_what_both_allow(directory: Directory) -> None:
    assert await directory.standing("acme", "a") == Standing(UNLIMITED, UNLIMITED, None)
    tight = Allowance(Limits(concurrent_requests=2))
    await directory.create_organisation("acme", "Acme", allowance=SMALL)
    await directory.create_team("acme", "a", "A", allowance=tight)
    assert await directory.standing("acme", "a") == Standing(SMALL, tight, None)
    assert await directory.standing("acme", "b") == Standing(SMALL, UNLIMITED, None)
    assert await directory.standing("rival", "a") == Standing()


@pytest.mark.parametrize("kind", ["organisation", "team"])
async def test_a_suspension_is_seen_elsewhere_within_the_cache_time(
    store: Store, directory: Directory, clock: Clock, kind: str
) -> None:
    elsewhere = Directory(store, clock=clock, monotonic=clock)
    await directory.create_organisation("acme", "Acme")
    await directory.create_team("acme", "a", "A")
    assert (await elsewhere.standing("acme", "a")).barred is None
    if kind == "team":
        await directory.change_team("acme", "a", lambda each: replace(each, suspended=True))
    else:
        await directory.change_organisation("acme", lambda each: replace(each, suspended=True))
    assert (await directory.standing("acme", "a")).barred == f"{kind}_suspended"
    clock.now += 1.51
    assert (await elsewhere.standing("acme", "a")).barred == f"{kind}_suspended"


async def test_changes_at_once_undo_nothing_of_each_other(store: Store, directory: Directory) -> None:
    await directory.create_team("acme", "a", "0")
    others = [Directory(store) for _ in range(4)]

    def one_more(team: Team) -> Team:
        return replace(team, name=str(int(team.name) + 1))

    await asyncio.gather(*(each.change_team("acme", "a", one_more) for each in others for _ in range(5)))
    assert (await directory.team("acme", "a")).name == "20"  # type: ignore[union-attr]


async def test_of_many_that_create_at_once_one_does(store: Store) -> None:
    made = await asyncio.gather(
        *(Directory(store).create_organisation("acme", str(number)) for number in range(5)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Organisation) for each in made) == 1
    assert sum(isinstance(each, AlreadyThere) for each in made) == 4


async def test_lists_go_on_past_a_page(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "_PAGE", 3)
    for number in range(8):
        await directory.create_organisation(f"o{number}", str(number))
    assert [each.tenant async for each in directory.organisations()] == [f"o{number}" for number in range(8)]


async def test_teams_are_bounded(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "MAX_TEAMS", 2)
    await directory.create_team("acme", "a", "A")
    await directory.create_team("acme", "b", "B")
    with pytest.raises(TooManyTeams, match="2 teams"):
        await directory.create_team("acme", "c", "C")
    await directory.create_team("rival", "c", "C")


@pytest.mark.parametrize("bad", ["", "a:b", "}{", "a b", "x" * 129, "ä", "\0"])
async def test_names_that_no_key_may_hold_are_refused(directory: Directory, bad: str) -> None:
    with pytest.raises(InvalidName):
        await directory.create_organisation(bad, "x")
    with pytest.raises(InvalidName):
        await directory.create_team("acme", bad, "x")
    with pytest.raises(InvalidName):
        await directory.standing(bad, "a")
