"""`/docs` and what it loads."""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

from serve_apps.reference.page import _ASSETS
from tests.serve_apps.conftest import Site


async def test_the_page_needs_nothing_from_elsewhere(site: Site) -> None:
    page = await site.http.get("/docs", headers={"authorization": ""})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {urlsplit(urljoin(f"{site.url}/docs", each)).netloc for each in loaded} == {
        urlsplit(site.url).netloc
    }
    kinds = {}
    for each in loaded:
        answer = await site.http.get(urljoin("/docs", each))
        assert answer.status_code == 200, each
        kinds[each.rpartition("/")[2]] = answer.headers["content-type"].partition(";")[0]
    assert kinds == {name: kind for name, (_, kind) in _ASSETS.items()} | {"openapi.json": "application/json"}


async def test_the_browser_is_told_to_ask_nobody_else(site: Site) -> None:
    page = await site.http.get("/docs")
    rules = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert "<script>" not in page.text, "the policy above would not run it"


async def test_only_what_the_page_needs_is_served(site: Site) -> None:
    for name in (
        "page.py",
        "page.html",
        "__init__.py",
        "redoc.standalone.js",
        "..%2Fpage.py",
        "%2e%2e/app.py",
    ):
        assert (await site.http.get(f"/docs/{name}")).status_code == 404, name
