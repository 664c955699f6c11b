"""Requests that leave, and those that do not."""

import asyncio
import socket
import time
from contextlib import asynccontextmanager

import pytest

from cluster.errors import ModelUnavailable, Overloaded
from runtime import http_client
from runtime.errors import NodeError
from runtime.http_client import HttpClient, HttpReply, HttpRequest
from tests.runtime.web import a_site


@asynccontextmanager
async def a_client(**hosts: bool):
    client = HttpClient({name.replace("_", "."): private for name, private in hosts.items()})
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def both(private: bool = True):
    """A site, and a client that may call it."""
    async with a_site() as site, a_client(**{site.host: private}) as client:
        yield site, client


def get(url: str, timeout_s: float = 10, most: int = 1000, **headers: str) -> HttpRequest:
    return HttpRequest("GET", url, headers, None, time.time() + timeout_s, most)


async def test_the_answer():
    async with both() as (site, client):
        site.answer = {"body": b"hi", "headers": {"content-type": "Text/Plain; charset=latin-1"}}
        reply = await client.fetch(get(f"{site.url}/a%2Fb?c=%20d", accept="x/y"))
        assert reply == HttpReply(200, "text/plain", "latin-1", b"hi")
        (seen,) = site.seen
        assert (seen["method"], seen["path"]) == ("GET", "/a%2Fb?c=%20d")
        assert (seen["headers"]["accept"], seen["headers"]["accept-encoding"]) == ("x/y", "identity")


@pytest.mark.parametrize(
    "url", ["http://example.com/", "https://127.0.0.1/", "http://127.0.0.1.example.com/"]
)
async def test_a_host_that_is_not_listed_is_not_called(url):
    async with both() as (site, client):
        with pytest.raises(NodeError, match="may not be called from this deployment"):
            await client.fetch(get(url))
        assert site.seen == []


async def test_the_port_is_part_of_the_host():
    async with a_site() as site, a_client(**{"127.0.0.1": True}) as client:
        with pytest.raises(NodeError, match="may not be called"):
            await client.fetch(get(site.url))
        assert site.seen == []


async def test_an_address_of_a_private_network_is_refused_though_it_is_listed():
    async with both(private=False) as (site, client):
        with pytest.raises(NodeError, match="leads to an address that may not be called"):
            await client.fetch(get(site.url))
        assert site.seen == []


@pytest.mark.parametrize(("private", "reached"), [(True, True), (False, False)])
async def test_a_name_that_leads_into_a_private_network(private, reached):
    async with a_site() as site:
        port = site.host.rsplit(":", 1)[1]
        async with a_client(**{f"localhost:{port}": private}) as client:
            if reached:
                assert (await client.fetch(get(f"http://localhost:{port}/"))).status == 200
            else:
                with pytest.raises(NodeError, match=r"localhost:.* leads to an address"):
                    await client.fetch(get(f"http://localhost:{port}/"))
        assert bool(site.seen) is reached


@pytest.mark.parametrize("name", ["2130706433", "127.1", "0x7f000001"])
async def test_odd_ways_to_write_an_address(name):
    async with a_site() as site:
        port = site.host.rsplit(":", 1)[1]
        async with a_client(**{f"{name}:{port}": False}) as client:
            with pytest.raises((NodeError, ModelUnavailable)):
                await client.fetch(get(f"http://{name}:{port}/"))
        assert site.seen == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        *((private, False) for private in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1")),
        *((other, False) for other in ("169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1")),
        *((private, False) for private in ("::1", "::", "fe80::1", "fd00::1", "ff02::1")),
        *((inside, False) for inside in ("::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1")),
        ("64:ff9b::808:808", True),
    ],
)
def test_public_addresses(address, public):
    assert http_client._is_public(address) is public


@pytest.mark.parametrize(
    ("status", "headers", "error", "retry_after_s"),
    [
        (429, {"retry-after": "7"}, Overloaded, 7.0),
        (429, {}, Overloaded, 1.0),
        (503, {"retry-after": "soon"}, ModelUnavailable, 1.0),
        (500, {"retry-after": "999999"}, ModelUnavailable, 3600.0),
        (404, {}, NodeError, None),
        (302, {"location": "http://127.0.0.1/"}, NodeError, None),
    ],
)
async def test_what_the_server_refuses(status, headers, error, retry_after_s):
    async with both() as (site, client):
        site.answer = {"status": status, "headers": headers, "text": "secret"}
        with pytest.raises(error, match=f"{site.host} answered {status}") as refused:
            await client.fetch(get(site.url))
        assert refused.value.retry_after_s == retry_after_s
        assert "secret" not in refused.value.message
        assert len(site.seen) == 1


async def test_an_answer_is_read_up_to_its_bound():
    async with both() as (site, client):
        site.answer = {"body": b"x" * 1000}
        assert len((await client.fetch(get(site.url))).body) == 1000
        with pytest.raises(NodeError, match="more than 999 bytes"):
            await client.fetch(get(site.url, most=999))


async def test_a_compressed_answer_is_refused():
    async with both() as (site, client):
        site.answer = {"body": b"x", "headers": {"content-encoding": "gzip"}}
        with pytest.raises(NodeError, match="compressed"):
            await client.fetch(get(site.url))


async def test_cookies_are_not_kept():
    async with both() as (site, client):
        site.answer = {"headers": {"set-cookie": "a=b"}}
        await client.fetch(get(site.url))
        await client.fetch(get(site.url))
        assert "cookie" not in site.seen[1]["headers"]


async def test_nobody_there():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{held.getsockname()[1]}"
        async with a_client(**{host: True}) as client:
            with pytest.raises(ModelUnavailable, match=f"{host} cannot be reached"):
                await client.fetch(get(f"http://{host}/"))


async def test_a_server_that_says_nothing():
    left = asyncio.Event()

    async def silent(reader, writer):
        await reader.read()  # until the client leaves
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, a_client(**{host: True}) as client:
        with pytest.raises(ModelUnavailable, match="did not answer in time"):
            await client.fetch(get(f"http://{host}/", timeout_s=0.05))
        await left.wait()


async def test_a_header_that_is_none_is_refused_without_quoting_it():
    async with both() as (site, client):
        with pytest.raises(NodeError, match="is not valid HTTP") as refused:
            await client.fetch(get(site.url, x="secret\r\ny: z"))
        assert "secret" not in refused.value.message
        assert site.seen == []


def test_secrets():
    client = HttpClient({}, {"TOKEN": " abc\n", "EMPTY": ""})
    assert client.secret("TOKEN") == "abc"
    for name in ("EMPTY", "OTHER"):
        with pytest.raises(NodeError, match=f"variable {name} is not set"):
            client.secret(name)
