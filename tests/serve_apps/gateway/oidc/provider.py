"""An identity provider on this machine: real HTTP, real keys, and it may rotate them, lie or go away."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from serve_apps.gateway.oidc.config import ProviderSpec

AUDIENCE = "clustergraph"
Key = RSAKey | ECKey


class FakeProvider:
    def __init__(self, number: int = 0) -> None:
        self.keys: list[Key] = [new_key("k1", number)]
        self.asked: list[str] = []
        self.issuer = ""
        self.says: dict[str, web.Response | Any] = {}
        """What it answers at a path in place of the truth."""

    def spec(self, **fields: Any) -> ProviderSpec:
        return ProviderSpec.model_validate(
            {
                "issuer": self.issuer,
                "audience": AUDIENCE,
                "allow_http": True,
                "organisation": "acme",
                "ask_every": 0.001,
                **fields,
            }
        )

    def claims(self, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        usual = {"iss": self.issuer, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300}
        return {name: value for name, value in (usual | claims).items() if value is not None}

    def token(self, key: Key | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        key = key or self.keys[-1]
        said = {"alg": "RS256", "kid": key.kid, **(header or {})}
        said = {name: value for name, value in said.items() if value is not None}
        registry = jwt.JWSRegistry(algorithms=[said["alg"]], strict_check_header=False)
        return jwt.encode(said, self.claims(**claims), key, registry=registry)

    async def _about(self, request: web.Request) -> web.StreamResponse:
        truth = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"}
        return self._answer(request.path, truth)

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        return self._answer(request.path, {"keys": [key.as_dict(private=False) for key in self.keys]})

    def _answer(self, path: str, truth: Any) -> web.StreamResponse:
        self.asked.append(path)
        said = self.says.get(path, truth)
        return said() if callable(said) else web.json_response(said)

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[FakeProvider]:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._about)
        app.router.add_get("/keys", self._jwks)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.issuer = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()


@functools.cache
def new_key(kid: str, number: int = 1) -> RSAKey:
    """The same for the same arguments: they take long to make."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})
