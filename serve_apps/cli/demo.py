"""The key and the words that greet whoever started the system."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from rich.console import Console

from serve_apps.cli.environment import write_secret
from serve_apps.cli.operator import deed, operating
from serve_apps.gateway.keys import KeyRecord, KeyRejected
from serve_apps.gateway.limits import Allowance, Limits
from serve_apps.settings import Settings

DEMO_TENANT = "demo"
DEMO_LIMITS = Limits(requests_per_minute=120, tokens_per_minute=100_000)


def demo_key_file(settings: Settings) -> Path:
    return settings.data_dir / "secrets" / "demo-key"


def demo_key(settings: Settings) -> str:
    """The demo key of this data directory: the one of the last start if it still works, else a new one."""
    return asyncio.run(_demo_key(settings))


async def _demo_key(settings: Settings) -> str:
    file = demo_key_file(settings)
    async with operating(settings) as (keys, audit):
        if file.exists():
            try:
                await keys.authenticate(file.read_text())
                return file.read_text()
            except KeyRejected:
                pass  # revoked, or the store was emptied: make another
        key_id, allowance = keys.new_id(), Allowance(DEMO_LIMITS)
        record = KeyRecord(key_id, DEMO_TENANT, "demo", time.time(), role="owner", allowance=allowance)
        made = audit.digest(DEMO_TENANT, record)
        async with audit.changing(deed(DEMO_TENANT, "key.create", f"key/{key_id}", made)):
            token = await keys.issue(record)
        write_secret(file, token)
        return token


def print_welcome(
    console: Console, url: str, key: str, settings: Settings, answer: str, seconds: float
) -> None:
    """Everything to paste, in one screen."""
    model = next(spec.name for spec in settings.models if spec.task == "generate")
    graph = settings.graphs[0].stem if settings.graphs else None
    console.print(f"\n[bold green]Ready[/] after {seconds:.0f} s. {model} says: [italic]{answer}[/]\n")
    console.print(f"  URL   {url}/v1   [dim](API reference: {url}/docs)[/]", soft_wrap=True)
    console.print(f"  Key   {key}\n", highlight=False, soft_wrap=True)
    for title, path, body in _examples(model, graph):
        console.print(f"[bold]{title}[/]")
        command = (
            f"curl {url}{path} -H 'Authorization: Bearer {key}' "
            f"-H 'Content-Type: application/json' \\\n  -d '{body}'"
        )
        console.print(command, soft_wrap=True, highlight=False, markup=False)
        console.print()
    console.print("Ctrl-C stops everything.")


def _examples(model: str, graph: str | None) -> list[tuple[str, str, str]]:
    chat = (
        f'{{"model": "{model}", "messages": [{{"role": "user", "content": "What is the capital of France?"}}]'
    )
    examples = [
        ("Chat", "/v1/chat/completions", chat + "}"),
        ("Stream", "/v1/chat/completions -N", chat + ', "stream": true}'),
    ]
    if graph is not None:
        run = '{"inputs": {"question": "How do I create an API key?"}}'
        examples.append(("Run a graph", f"/v1/graphs/{graph}/runs", run))
    return examples
