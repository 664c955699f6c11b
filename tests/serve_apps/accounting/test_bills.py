from __future__ import annotations

import msgspec
import pytest

from cluster.engines.fake import FakeEngine
from cluster.messages import Delta, Generate, Usage
from serve_apps.accounting.bills import MAX_TAGS, CallBill, Facts, endpoint_of, merged, tags_in, tags_of
from serve_apps.accounting.model import CallRecord, Share, decode_record
from serve_apps.gateway.callers import Caller
from serve_apps.gateway.demand import Price, Spent
from serve_apps.gateway.errors import BadRequest
from serve_apps.gateway.metering import GenerateMeter
from tests.serve_apps.conftest import CHAT, chat_pool


def bill(now: float = 107.5) -> tuple[CallBill, GenerateMeter]:
    call = Generate("id", CHAT, 10, 0.0, prompt="one two three", stream=True)
    meter = GenerateMeter(chat_pool(FakeEngine()), call, 3, Price(input=1_000, output=5_000, by="config"))
    caller = Caller("acme", "key-1", team="blue")
    facts = Facts("call-1", "shown", caller, "/v1/completions", CHAT, 100.0, {"project": "search"})
    return CallBill(facts, meter, lambda: now), meter


def test_a_call_that_is_done_is_told_whole() -> None:
    told, meter = bill()
    meter.observe([Delta("a")])
    meter.observe([Delta(" b"), Usage(3, 2, engine_ns=9)])
    spent = told.spent(5)
    assert spent == Spent(5, 13)
    record = decode_record(told.record("done", spent))
    assert record == CallRecord(
        "call-1",
        107.5,
        "acme",
        "blue",
        "key-1",
        "/v1/completions",
        CHAT,
        "done",
        7.5,
        meter.first_token_s,
        {"project": "search"},
        [Share(CHAT, "", 3, 0, 2, 9, 13, "config")],
    )
    assert record.first_token_s is not None


def test_what_is_told_is_what_is_charged() -> None:
    told, meter = bill()
    meter.observe([Delta("a"), Delta(" b"), Delta(" c")])
    assert meter.owed == 6
    spent = told.spent(4)
    [share] = told.told("cut", spent).shares
    assert (
        (share.input_tokens, share.output_tokens, share.nanodollars) == (3, 1, spent.nanodollars) == (3, 1, 8)
    )


def test_a_call_that_is_not_charged_has_no_shares() -> None:
    told, _ = bill(now=99.0)
    assert told.spent(0) == Spent(0)
    record = told.told("refused", Spent(0))
    assert (record.shares, record.end, record.seconds) == ([], "refused", 0.0)


def test_tags_stand_in_a_header() -> None:
    assert tags_of(b"project=search, feature=titles-2") == {"project": "search", "feature": "titles-2"}
    assert tags_of(b"") == tags_of(b" , ") == {}


@pytest.mark.parametrize(
    "header",
    [
        b"project",
        b"=x",
        b"a=b=c",
        b"-a=b",
        b"a=" + b"x" * 65,
        b"a b=c",
        b"a=\x01",
        b",".join(b"t%d=x" % number for number in range(MAX_TAGS + 1)),
        b"," * 5000,
    ],
)
def test_tags_that_are_none_are_refused(header: bytes) -> None:
    with pytest.raises(BadRequest, match="x-tags"):
        tags_of(header)


def test_metadata_holds_other_things_than_tags_too() -> None:
    metadata = {
        "project": "search",
        "note": "x" * 65,
        "a b": "c",
        "empty": "",
        "line": "a\nb",
        "team": "Blau ß",
    }
    assert tags_in(metadata) == {"project": "search", "team": "Blau ß"}
    assert len(tags_in({f"t{number}": "x" for number in range(16)})) == MAX_TAGS


def test_endpoints_are_told_without_names() -> None:
    assert endpoint_of("/v1/graphs/support/runs") == "/v1/graphs/*/runs"
    assert endpoint_of("/v1/chat/completions") == "/v1/chat/completions"


def test_tags_of_the_header_go_before_those_of_the_body() -> None:
    assert merged({"a": "1"}, {"a": "2", "b": "3"}) == {"a": "1", "b": "3"}
    assert len(merged({f"t{n}": "x" for n in range(MAX_TAGS)}, {"b": "3"})) == MAX_TAGS


def test_a_line_of_the_log_tells_all_but_what_was_said(capfd: pytest.CaptureFixture[str]) -> None:
    told, meter = bill()
    meter.observe([Delta("secret"), Usage(3, 2, engine_ns=5 * 10**8)])
    told.record("expired", told.spent(5))
    assert capfd.readouterr().out == ""
    told.record("done", told.spent(5))
    [line] = capfd.readouterr().out.splitlines()
    shown = msgspec.json.decode(line)
    assert "secret" not in line
    assert (shown["event"], shown["request_id"], shown["call_id"], shown["end"]) == (
        "call",
        "shown",
        "call-1",
        "done",
    )
    assert (shown["input_tokens"], shown["output_tokens"], shown["engine_seconds"]) == (3, 2, 0.5)
    assert (shown["cost_usd"], shown["seconds"], shown["tags"]) == ("0.000000013", 7.5, {"project": "search"})
    assert shown["timestamp"] == "1970-01-01T00:01:47.500+00:00"
