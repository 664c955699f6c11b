"""`/docs`, from files of this machine alone: whoever looks at it needs no other host, and is seen by none.

Swagger UI is the one that comes with `fastapi-offline`. The page around it asks for a key, with which it gets
the document of what that key may do; the key stays in the tab.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from serve_apps.gateway.errors import NotFound

_OWN: Final = Path(str(files("serve_apps.reference")))
_SWAGGER: Final = Path(str(files("fastapi_offline"))) / "static"
_ASSETS: Final[Mapping[str, tuple[Path, str]]] = {
    "page.css": (_OWN, "text/css"),
    "page.js": (_OWN, "text/javascript"),
    "icon.svg": (_OWN, "image/svg+xml"),
    "swagger-ui.css": (_SWAGGER, "text/css"),
    "swagger-ui-bundle.js": (_SWAGGER, "text/javascript"),
}
_HEADERS: Final[Mapping[str, str]] = {
    # Swagger UI styles its elements in place and draws with data URLs; nothing else needs an exception.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/docs")
    async def page() -> Response:
        return FileResponse(_OWN / "page.html", headers=dict(_HEADERS), media_type="text/html")

    @routes.get("/docs/{name}")
    async def asset(name: str) -> Response:
        found = _ASSETS.get(name)
        if found is None:
            raise NotFound("No such route.")
        folder, kind = found
        kept = {"cache-control": "public, max-age=3600", "x-content-type-options": "nosniff"}
        return FileResponse(folder / name, headers=kept, media_type=kind)

    return routes
