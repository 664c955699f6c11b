"""Requests to web servers that the deploy config lists, and to no others.

    host listed? ─► name resolved ─► address public? ─► connect to that address ─► answer read up to a bound

Addresses are checked where the connection is made, after the name was resolved, so that a name cannot lead to
this machine or its network, neither at once nor later. Redirects are not followed, cookies not kept, proxies
of the environment not used, and compressed answers not asked for: a small one could be huge when opened.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from cluster.errors import ClusterError, ModelUnavailable, Overloaded
from runtime.errors import NodeError

CONNECT_S = 10.0
MAX_CONNECTIONS = 100
CHUNK_BYTES = 64 * 1024
RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 3600.0

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_PORTS = {"http": 80, "https": 443}


class HttpRequest(msgspec.Struct, frozen=True):
    method: str
    url: str
    """Quoted."""
    headers: Mapping[str, str]
    body: bytes | None
    deadline: float
    """Unix seconds."""
    max_response_bytes: int


class HttpReply(msgspec.Struct, frozen=True):
    status: int
    content_type: str
    """Without parameters, in small letters."""
    charset: str
    body: bytes


class HttpClient:
    """Args:
    hosts: those that may be called, as `api.example.com` or `localhost:8080`, and whether they may be in a
        private network.
    secrets: values that headers may have, by name.
    """

    def __init__(
        self, hosts: Mapping[str, bool] | None = None, secrets: Mapping[str, str] | None = None
    ) -> None:
        self._hosts = hosts or {}
        self._secrets = secrets or {}
        self._session: aiohttp.ClientSession | None = None

    def secret(self, name: str) -> str:
        """Raises `NodeError` for one that is not there."""
        value = self._secrets.get(name, "").strip()
        if not value:
            raise NodeError(f"the environment variable {name} is not set where graphs run")
        return value

    async def fetch(self, request: HttpRequest) -> HttpReply:
        """The answer, whatever its status below 300.

        Raises `Overloaded` for 429, `ModelUnavailable` for 500 and above and where nothing answers in time,
        `NodeError` for all else. No error quotes the answer or a header.
        """
        host = self._check(request.url)
        left = max(0.001, request.deadline - time.time())
        try:
            async with self._open().request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers={**request.headers, "accept-encoding": "identity"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=left, connect=min(left, CONNECT_S)),
            ) as response:
                if response.status >= 300:
                    raise _refused(host, response)
                return HttpReply(
                    response.status,
                    response.content_type,
                    response.charset or "utf-8",
                    await _read(host, response, request.max_response_bytes),
                )
        except _Forbidden as error:
            raise NodeError(f"{host} leads to an address that may not be called") from error
        except TimeoutError as error:
            raise ModelUnavailable(f"{host} did not answer in time", retry_after_s=RETRY_AFTER_S) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ModelUnavailable(f"{host} cannot be reached", retry_after_s=RETRY_AFTER_S) from error
        except ValueError as error:
            raise NodeError(f"the request to {host} is not valid HTTP") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _check(self, url: str) -> str:
        """The host, where it may be called."""
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port
        listed = _listed(name, port or _PORTS.get(parts.scheme, 0), parts.scheme)
        if listed not in self._hosts:
            raise NodeError(f"the host {listed} may not be called from this deployment")
        if not self._hosts[listed] and not _is_public(name, unknown=True):
            raise NodeError(f"{listed} leads to an address that may not be called")
        return listed

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            private = {host for host, allowed in self._hosts.items() if allowed}
            connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, resolver=_PublicResolver(private))
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


class _Forbidden(Exception):
    """A name that leads to no address that may be called."""


class _PublicResolver(AbstractResolver):
    """Gives only public addresses, except for hosts that may be private."""

    def __init__(self, private: set[str]) -> None:
        self._private = private
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if any(_listed(host, port, scheme) in self._private for scheme in _PORTS):
            return found
        public = [each for each in found if _is_public(each["host"])]
        if found and not public:
            raise _Forbidden(host)
        return public

    async def close(self) -> None:
        await self._resolver.close()


def _listed(name: str, port: int, scheme: str) -> str:
    """The host as the deploy config lists it."""
    shown = f"[{name}]" if ":" in name else name
    return shown if port == _PORTS.get(scheme) else f"{shown}:{port}"


def _is_public(text: str, *, unknown: bool = False) -> bool:
    """Whether an address is one of the public internet; `unknown` for what is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return unknown
    inner: list[Any] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        # An address of version 4 inside is where the packets go in the end.
        inner += [each for each in (address.ipv4_mapped, address.sixtofour) if each is not None]
        if address in _NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return all(each.is_global and not each.is_multicast for each in inner)


def _refused(host: str, response: aiohttp.ClientResponse) -> ClusterError:
    status = response.status
    if status == 429:
        return Overloaded(f"{host} answered 429", retry_after_s=_retry_after_s(response))
    if status >= 500:
        return ModelUnavailable(f"{host} answered {status}", retry_after_s=_retry_after_s(response))
    if status < 400:
        return NodeError(f"{host} answered {status}; redirects are not followed")
    return NodeError(f"{host} answered {status}")


def _retry_after_s(response: aiohttp.ClientResponse) -> float:
    said = response.headers.get("retry-after", "")
    return min(float(said), MAX_RETRY_AFTER_S) if said.isdecimal() and len(said) < 10 else RETRY_AFTER_S


async def _read(host: str, response: aiohttp.ClientResponse, most: int) -> bytes:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise NodeError(f"{host} answered compressed, which it was not asked to")
    pieces, size = [], 0
    async for piece in response.content.iter_chunked(CHUNK_BYTES):
        size += len(piece)
        if size > most:
            raise NodeError(f"{host} answered with more than {most} bytes")
        pieces.append(piece)
    return b"".join(pieces)
