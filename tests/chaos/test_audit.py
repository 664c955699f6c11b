"""Row 17: whoever can write to the whole store, and has no secret, tampers with an audit log.

The log is written by gateways, for changes that an owner makes over HTTP, and looked at over HTTP after each
attack. Attacks on its end go with the seal as it is and with an older one of the log's own; the latter, a log
set back as a whole, is found by the anchor that somebody kept.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx

from runtime.store.client import Store, Word
from serve_apps.cli.operator import store_url
from serve_apps.gateway.directory import Directory
from tests.chaos.client import client
from tests.chaos.figures import report, times
from tests.e2e.system import RunningSystem

ATTACKS = 1_000
CHANGES = 40
Fields = dict[bytes, bytes]


class Log(NamedTuple):
    """As the store has it."""

    entries: list[tuple[bytes, Fields]]
    head: Fields


def _edit(drawn: random.Random, log: Log, _: Log) -> None:
    """One bit, of an entry or of its MAC."""
    _, fields = drawn.choice(log.entries)
    name = drawn.choice(list(fields))
    value = bytearray(fields[name])
    value[drawn.randrange(len(value))] ^= 1 << drawn.randrange(8)
    fields[name] = bytes(value)


def _reword(drawn: random.Random, log: Log, _: Log) -> None:
    """Another name in place of one that is told."""
    named = [fields for _, fields in log.entries if b"key/" in fields[b"entry"]]
    fields = drawn.choice(named)
    at = fields[b"entry"].index(b"key/") + 4
    fields[b"entry"] = fields[b"entry"][:at] + b"0000" + fields[b"entry"][at + 4 :]


def _reorder(drawn: random.Random, log: Log, _: Log) -> None:
    one, two = drawn.sample(range(len(log.entries)), 2)
    (first, said), (second, told) = log.entries[one], log.entries[two]
    log.entries[one], log.entries[two] = (first, told), (second, said)


def _take_out(drawn: random.Random, log: Log, _: Log) -> None:
    del log.entries[drawn.randrange(len(log.entries) - 1)]


def _close_up(drawn: random.Random, log: Log, other: Log) -> None:
    """Taken out, with the rest moved up so that no number is missing."""
    _take_out(drawn, log, other)
    log.entries[:] = [(b"%d-0" % number, fields) for number, (_, fields) in enumerate(log.entries, 1)]


def _truncate(drawn: random.Random, log: Log, _: Log) -> None:
    del log.entries[drawn.randrange(len(log.entries)) :]


def _truncate_with_its_number(drawn: random.Random, log: Log, _: Log) -> None:
    """The head says where the log now ends, as well as it can without the secret."""
    keep = drawn.randrange(1, len(log.entries))
    del log.entries[keep:]
    log.head[b"sequence"] = b"%d" % keep
    log.head[b"mac"] = log.entries[-1][1][b"mac"]


def _set_back(drawn: random.Random, log: Log, other: Log) -> None:
    """To what it was as a whole, head and all. `other` is an older copy of it."""
    log.entries[:] = other.entries
    log.head.clear()
    log.head.update(other.head)


def _repeat(drawn: random.Random, log: Log, _: Log) -> None:
    """An entry again, at the end."""
    log.entries.append((b"%d-0" % (len(log.entries) + 1), drawn.choice(log.entries)[1]))


def _behead(drawn: random.Random, log: Log, _: Log) -> None:
    log.head.clear()


KINDS: Mapping[str, Callable[[random.Random, Log, Log], None]] = {
    "edited": _edit,
    "reworded": _reword,
    "reordered": _reorder,
    "taken_out": _take_out,
    "closed_up": _close_up,
    "truncated": _truncate,
    "truncated_with_its_number": _truncate_with_its_number,
    "set_back": _set_back,
    "repeated": _repeat,
    "beheaded": _behead,
}


class Places(NamedTuple):
    """Of one log in the store."""

    store: Store
    tenant: str

    @property
    def keys(self) -> tuple[str, str]:
        return f"cgh:{{{self.tenant}}}:audit:log", f"cgh:{{{self.tenant}}}:audit:head"

    async def read(self) -> Log:
        entries, head = self.keys
        found = await self.store.execute("XRANGE", entries, "-", "+")
        return Log([(place, _pairs(flat)) for place, flat in found], _pairs(await self._head(head)))

    async def write(self, log: Log) -> None:
        entries, head = self.keys
        commands: list[tuple[Word, ...]] = [("DEL", entries, head)]
        commands += [("XADD", entries, place, *_flat(fields)) for place, fields in log.entries]
        if log.head:
            commands.append(("HSET", head, *_flat(log.head)))
        await self.store.execute_many(commands)

    async def _head(self, key: str) -> list[bytes]:
        found: list[bytes] = await self.store.execute("HGETALL", key)
        return found


def _pairs(flat: list[bytes]) -> Fields:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _flat(fields: Fields) -> list[bytes]:
    return [word for pair in fields.items() for word in pair]


def _copy(log: Log) -> Log:
    return Log([(place, dict(fields)) for place, fields in log.entries], dict(log.head))


async def _change(http: httpx.AsyncClient, count: int) -> None:
    for number in range(count):
        made = await http.post("/v1/admin/keys", json={"name": f"k{number}"})
        assert made.status_code == 201, made.text
        gone = await http.post(f"/v1/admin/keys/{made.json()['id']}/revoke")
        assert gone.is_success, gone.text


async def _verdict(http: httpx.AsyncClient, anchor: str) -> dict[str, Any]:
    answer = await http.get("/v1/admin/audit/verify", params={"anchor": anchor})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def _attack(system: RunningSystem, key: str, tenant: str) -> tuple[Counter[str], Counter[str], bool]:
    """How often each attack was made and how often it was found, and whether the log was sound in the end."""
    places = Places(Store.connect(store_url(system.settings), timeout_s=5), tenant)
    made, found = Counter[str](), Counter[str]()
    drawn = random.Random(17)
    try:
        await Directory(places.store).create_organisation(tenant, "Watched")
        async with client(system, key) as http:
            await _change(http, CHANGES // 2)
            older = await places.read()
            await _change(http, CHANGES // 2)
            whole = await places.read()
            anchor = (await http.get("/v1/admin/audit/head")).json()["anchor"]
            for number in range(times(ATTACKS)):
                kind = list(KINDS)[number % len(KINDS)]
                tampered = _copy(whole)
                KINDS[kind](drawn, tampered, older)
                await places.write(tampered)
                verdict = await _verdict(http, anchor)
                made[kind] += 1
                found[kind] += not verdict["sound"] and verdict["first_bad"] >= 1
            await places.write(whole)
            return made, found, (await _verdict(http, anchor))["sound"]
    finally:
        await places.store.close()


def test_a_log_that_was_tampered_with_is_found_out(system: RunningSystem) -> None:
    key, record = system.key(role="owner")
    made, found, sound = asyncio.run(_attack(system, key, record.tenant))
    missed = made - found
    report(
        17,
        "audit log edited, reordered, truncated",
        entries=CHANGES * 2,
        attacks=made.total(),
        kinds=len(made),
        detected=found.total(),
        detected_share=found.total() / made.total(),
    )
    assert sound, "as it was written it is whole"
    assert missed == Counter(), dict(missed)
