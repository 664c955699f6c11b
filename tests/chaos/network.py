"""A network that can be cut without a sound: a namespace of the kernel's for the store, and links to it.

    here  10.213.7.1 ── link 0 ── 10.213.7.2 │ namespace, where the store
          10.213.7.5 ── link 1 ── 10.213.7.6 │ listens on every address

A link is cut by giving both sides a neighbour's address that is nobody's: what is sent is lost on the way, no
connection breaks, and nobody is told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NOBODY = "02:00:00:00:00:fe"
LINKS = 2


class Network:
    """A namespace, and links into it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inside = ["ip", "netns", "exec", name]

    def address(self, link: int) -> str:
        """Of the store, over this link."""
        return f"10.213.7.{4 * link + 2}"

    def cut(self, link: int) -> None:
        here, there = self._here(link), self.address(link)
        _run("ip", "neigh", "replace", there, "lladdr", NOBODY, "dev", self._outer(link), "nud", "permanent")
        _run(*self.inside, "ip", "neigh", "replace", here, "lladdr", NOBODY, "dev", self._inner(link),
             "nud", "permanent")  # fmt: skip

    def mend(self, link: int) -> None:
        _run("ip", "neigh", "del", self.address(link), "dev", self._outer(link))
        _run(*self.inside, "ip", "neigh", "del", self._here(link), "dev", self._inner(link))

    def begin(self) -> None:
        _run("ip", "netns", "add", self.name)

    def build(self) -> None:
        _run(*self.inside, "ip", "link", "set", "lo", "up")
        for link in range(LINKS):
            outer, inner = self._outer(link), self._inner(link)
            _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", self.name)
            _run("ip", "addr", "add", f"{self._here(link)}/30", "dev", outer)
            _run("ip", "link", "set", outer, "up")
            _run(*self.inside, "ip", "addr", "add", f"{self.address(link)}/30", "dev", inner)
            _run(*self.inside, "ip", "link", "set", inner, "up")

    def remove(self) -> None:
        """The links too: they would go with their namespace, but later, and in the way of the next ones."""
        for link in range(LINKS):
            subprocess.run(["ip", "link", "del", self._outer(link)], capture_output=True, check=False)
        _run("ip", "netns", "del", self.name)

    def _here(self, link: int) -> str:
        return f"10.213.7.{4 * link + 1}"

    def _outer(self, link: int) -> str:
        return f"{self.name}o{link}"

    def _inner(self, link: int) -> str:
        return f"{self.name}i{link}"


@contextmanager
def network() -> Iterator[Network]:
    """Skips the test where the kernel does not let us."""
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` to make a network namespace with: apt-get install iproute2")
    made = Network(f"cgh{os.getpid() % 10**6}")
    try:
        made.begin()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.decode().strip()}")
    try:
        made.build()
        yield made
    finally:
        made.remove()


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True)
