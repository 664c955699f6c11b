"""What the commands of administrators share, and all of them against a gateway as it is."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer import Typer
from typer.testing import CliRunner

from cluster.messages import AdmissionState, EngineStatus, TenantState
from serve_apps.api.admin.limits import LimitsObject
from serve_apps.api.admin.pools import PoolState
from serve_apps.cli import audit, main, organisations, quotas, teams
from serve_apps.cli.admin import AdminClient, limits_given, show_limits
from serve_apps.cli.calls import CallFailed
from serve_apps.cli.keys import app as key_commands
from serve_apps.cli.pools import _rows
from serve_apps.gateway.keys import KeyStore
from tests.serve_apps.cli.conftest import FakeGateway
from tests.serve_apps.conftest import CHAT, Site


def test_the_key_comes_from_the_environment_alone(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLUSTERGRAPH_KEY", raising=False)
    with pytest.raises(CallFailed, match=r"export CLUSTERGRAPH_KEY.*keys bootstrap"):
        AdminClient(gateway.url)
    monkeypatch.setenv("CLUSTERGRAPH_KEY", "secret")
    gateway.answer("GET /v1/admin/keys?team=a+b", {})
    AdminClient(gateway.url).get("keys", dict, team="a b", organisation=None)
    assert gateway.asked == [("GET /v1/admin/keys?team=a+b", "Bearer secret")]


@pytest.mark.parametrize("app", [key_commands, teams.app, organisations.app, quotas.app, audit.app])
def test_no_command_takes_a_key_as_an_argument(app: Typer) -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert "key" not in command.callback.__code__.co_varnames[: command.callback.__code__.co_argcount]


def test_limits_as_they_are_typed() -> None:
    assert limits_given("5", "none", None, "0", "12.50") == {
        "requests_per_minute": 5,
        "tokens_per_minute": None,
        "tokens_per_day": 0,
        "dollars_per_month": "12.50",
    }
    assert limits_given(None, None, None, None, "none") == {"dollars_per_month": None}
    for wrong in ("-1", "many", "1.5", "٣", "9" * 20):
        with pytest.raises(CallFailed, match="--rpm: a whole number"):
            limits_given(wrong, None, None, None, None)


def test_limits_in_a_cell() -> None:
    assert show_limits(LimitsObject(None, None, None, None, None)) == "-"
    assert show_limits(LimitsObject(5, None, 2, None, "0.5")) == "5 requests/min\n2 at once\n$0.5/month"


class Terminal:
    """Commands that are typed one after the other, at a gateway in this process."""

    def __init__(self, url: str, token: str) -> None:
        self._environment = {"COLUMNS": "200", "CLUSTERGRAPH_URL": url, "CLUSTERGRAPH_KEY": token}

    async def type(self, app: Typer, *arguments: str, exits: int = 0) -> str:
        runner = CliRunner(env=self._environment)
        with capture_logs():  # the gateway's, which is in this process
            result = await asyncio.to_thread(runner.invoke, app, arguments, catch_exceptions=False)
        assert result.exit_code == exits, result.output
        return result.stdout

    async def type_json(self, app: Typer, *arguments: str) -> Any:
        return json.loads(await self.type(app, *arguments, "--json"))


async def test_from_the_first_key_to_an_audit_of_it_all(site: Site, keys: KeyStore) -> None:
    token, _ = await keys.bootstrap("platform", "first")
    type_, type_json = Terminal(site.url, token).type, Terminal(site.url, token).type_json
    await type_(organisations.app, "create", "team-corp", "--name", "Corp", "--dollars-per-month", "12.50")
    await type_(teams.app, "create", "lab", "--org", "team-corp", "--tpm", "1000")
    assert "1000 tokens/min" in await type_(teams.app, "set", "lab", "--org", "team-corp", "--rpm", "9")
    made = ("create", "app", "--org", "team-corp", "--team", "lab", "--model", CHAT, "--rpm", "5")
    key = (await type_(key_commands, *made)).strip()
    spend = ("--team", "lab", "--org", "team-corp", "--model", CHAT, "--dollars-per-month", "0.25")
    assert "0.25" in await type_(quotas.app, "set", *spend)
    shown = await type_(quotas.app, "show", "--team", "lab", "--org", "team-corp")
    assert all(part in shown for part in ("12.5", "tokens per minute", CHAT, "0.25"))
    headers = {"authorization": f"Bearer {key}"}
    body = {"model": CHAT, "messages": [{"role": "user", "content": "hi"}]}
    assert (await site.http.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
    (listed,) = (await type_json(key_commands, "list", "--org", "team-corp"))["data"]
    assert key.startswith(f"cgh_{listed['id']}_")
    assert (listed["team"], listed["limits"]["requests_per_minute"]) == ("lab", 5)
    changed = await type_json(
        key_commands, "limits", listed["id"], "--rpm", "none", "--dollars-per-month", "0.1"
    )
    assert (changed["limits"]["requests_per_minute"], changed["limits"]["dollars_per_month"]) == (None, "0.1")
    changed = await type_json(key_commands, "change", listed["id"], "--model", "all", "--expires-days", "2")
    assert changed["models"] is None
    rotated = await type_(key_commands, "rotate", listed["id"], "--overlap", "1h")
    assert rotated.strip() != key
    assert "revoked" in await type_(key_commands, "revoke", listed["id"])
    assert (await type_json(key_commands, "get", listed["id"]))["state"] == "revoked"
    await type_(organisations.app, "set", "team-corp", "--suspend")
    assert "suspended" in await type_(organisations.app, "list")
    assert "is deleted" in await type_(teams.app, "delete", "lab", "--org", "team-corp")
    anchor = (await type_(audit.app, "head", "--org", "team-corp")).strip()
    assert "sound" in await type_(audit.app, "verify", "--org", "team-corp", "--anchor", anchor)
    shown = await type_(audit.app, "list", "--org", "team-corp")
    for action in ("organisation.create", "team.change", "key.create", "key.rotate", "key.revoke"):
        assert action in shown
    wrong = anchor[:-1] + ("0" if anchor[-1] != "0" else "1")
    assert "broken at entry" in await type_(
        audit.app, "verify", "--org", "team-corp", "--anchor", wrong, exits=1
    )


async def test_pools_are_shown_to_administrators(site: Site, keys: KeyStore) -> None:
    token, _ = await keys.bootstrap("platform", "first")
    terminal = Terminal(site.url, token)
    assert CHAT in await terminal.type(main.app, "pools")
    report = await terminal.type_json(main.app, "pools")
    assert CHAT in {pool["model"] for pool in report["data"]}


def test_a_replica_is_one_row() -> None:
    queue = AdmissionState(
        2, 34, 700, 20_000, 0, 5, 990, tenants=[TenantState("acme", 5, 1.0, 9.0)], refused=3
    )
    pool = PoolState("m", [EngineStatus(admission=queue), EngineStatus()])
    first, second = _rows(pool)
    assert first[:6] == ("m", "1", "2 of 34", "700 of 20000", "5 of 990", "0.00 s")
    assert first[6:] == ("-", "3", "acme: 5")
    assert second[1] == "2"
