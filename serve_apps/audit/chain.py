"""The chain of an audit log, as pure functions of its bytes.

    mac(0) = start          of the log's organisation
    mac(n) = MAC(mac(n-1), n, entry n)
    seal   = MAC'(n, mac(n))          of the last entry, kept beside the log
    floor  = MAC"(n, mac(n))          of the last entry that was let go, where the log begins behind one

The MAC is keyed BLAKE2b (RFC 7693), under a key derived for each organisation from a secret that is not in
the store. So whoever can write to the store, and to nothing else, makes no entry that fits:

    an entry edited, swapped, inserted or taken out    its MAC, or its number, fits no more
    the last entries cut off                           the seal tells of more
    the log and the seal set back to an older pair     an anchor that was kept elsewhere tells of more

After Schneier and Kelsey, "Secure audit logs to support computer forensics" (1999), section 3, without their
evolving keys: who holds the secret of the gateways could forge.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from serve_apps.audit.model import Anchor, Head, Kept, Verdict

MAC_BYTES: Final = 32
_DIGEST_BYTES: Final = 16
_NUMBER_BYTES: Final = 8


class ChainKey:
    """What the log of one organisation is written with. `secret` has 32 to 64 bytes."""

    def __init__(self, secret: bytes, tenant: str) -> None:
        self.tenant = tenant
        self._key = _mac(secret, b"cgh audit key", tenant.encode())
        self.start = _mac(self._key, b"cgh audit start", b"")
        """What the first entry binds."""

    def link(self, previous: bytes, sequence: int, packed: bytes) -> bytes:
        """The MAC of an entry."""
        return _mac(self._key, b"cgh audit link", previous + sequence.to_bytes(_NUMBER_BYTES) + packed)

    def seal(self, sequence: int, mac: bytes) -> bytes:
        """What says that the log ends with this entry."""
        return _mac(self._key, b"cgh audit seal", sequence.to_bytes(_NUMBER_BYTES) + mac)

    def floor_seal(self, sequence: int, mac: bytes) -> bytes:
        """What says that all entries up to this one were sound when they were let go."""
        return _mac(self._key, b"cgh audit floor", sequence.to_bytes(_NUMBER_BYTES) + mac)

    def is_floor(self, floor: Head) -> bool:
        """Whether we let entries go up to there."""
        return floor.sequence >= 1 and hmac.compare_digest(
            floor.seal, self.floor_seal(floor.sequence, floor.mac)
        )

    def sealed(self, head: Head) -> bool:
        """Whether we wrote this head."""
        return head.sequence >= 1 and hmac.compare_digest(head.seal, self.seal(head.sequence, head.mac))

    def digest(self, value: Any) -> str:
        """32 hexadecimal digits, equal for equal values, which tell nobody else what the value is."""
        plain = msgspec.json.encode(value, order="deterministic")
        return _mac(self._key, b"cgh audit value", plain)[:_DIGEST_BYTES].hex()


class ChainCheck:
    """Looks at a log from its first entry on, a page at a time, and remembers the first thing wrong.

    It begins behind `floor`, the last entry that was let go, if there is one. An anchor of before that tells
    nothing any more.
    """

    def __init__(self, key: ChainKey, anchors: Sequence[Anchor] = (), floor: Head | None = None) -> None:
        self._key = key
        self._anchors = {anchor.sequence: anchor for anchor in anchors}
        self.mac = key.start
        """Of the last entry that is as it was written."""
        self._fault: tuple[int, str] | None = None
        self.entries = 0
        """That are as they were written, those that were let go among them."""
        if floor is not None:
            self._begin_behind(floor)

    @property
    def sound(self) -> bool:
        """Whether all that was looked at is as it was written."""
        return self._fault is None

    def feed(self, page: Iterable[Kept]) -> None:
        """The next entries, in the order of the store."""
        for kept in page:
            if self._fault is None:
                self._fault = self._look(kept)

    def end(self, head: Head | None) -> Verdict:
        """What it came to, once all entries were fed. `head` as the store has it, read after them."""
        if self._fault is None:
            self._fault = self._look_at_end(head)
        reached = Anchor(self._key.tenant, self.entries, self.mac.hex()) if self.entries else None
        if self._fault is None:
            return Verdict(self.entries, reached)
        return Verdict(self.entries, reached, *self._fault)

    def _begin_behind(self, floor: Head) -> None:
        anchor = self._anchors.get(floor.sequence)
        if not self._key.is_floor(floor):
            self._fault = (1, "what is said of the entries that were let go is not what was written there")
        elif anchor is not None and not hmac.compare_digest(anchor.mac, floor.mac.hex()):
            self._fault = (floor.sequence, f"the log is not the one of the anchor {anchor}")
        else:
            self.mac, self.entries = floor.mac, floor.sequence

    def _look(self, kept: Kept) -> tuple[int, str] | None:
        number = self.entries + 1
        if kept.place != b"%d-0" % number:
            return number, f"at the place of entry {number} there is {kept.place.decode(errors='replace')}"
        mac = self._key.link(self.mac, number, kept.packed)
        if not hmac.compare_digest(mac, kept.mac):
            return number, f"entry {number} is not what was written there"
        anchor = self._anchors.get(number)
        if anchor is not None and not hmac.compare_digest(anchor.mac, mac.hex()):
            return number, f"the log is not the one of the anchor {anchor}: it was another up to there"
        self.mac, self.entries = mac, number
        return None

    def _look_at_end(self, head: Head | None) -> tuple[int, str] | None:
        following = self.entries + 1
        ahead = [anchor for anchor in self._anchors.values() if anchor.sequence > self.entries]
        if ahead:
            return following, f"the log ends before entry {max(each.sequence for each in ahead)} of an anchor"
        if head is None:
            return (following, "the head of the log is gone") if self.entries else None
        if not self._key.sealed(head):
            return following, "the head of the log is not what was written there"
        if head.sequence > self.entries:
            return following, f"the log ends before entry {head.sequence} of its head"
        if head.sequence < self.entries or head.mac != self.mac:
            return head.sequence + 1, f"the log goes on behind entry {head.sequence} of its head"
        return None


def check(key: ChainKey, log: Iterable[Kept], head: Head | None, anchors: Sequence[Anchor] = ()) -> Verdict:
    """A whole log at once."""
    looking = ChainCheck(key, anchors)
    looking.feed(log)
    return looking.end(head)


def _mac(key: bytes, purpose: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=MAC_BYTES, person=purpose).digest()
