"""Who has been heard by which key, and over how many connections now: for `genserve keys list`.

Pure. Knows names; decides nothing. Without keys it stays empty.
"""

from collections import OrderedDict
from dataclasses import dataclass

from common.messages import KEYS_PER_PAGE, KeysReply, KeyView
from common.roles import LOCAL, Identity, Side
from router.events import Peer

NAMES_MAX = 10_000  # remembered at once; the one heard longest ago goes first


@dataclass(slots=True)
class Visitor:
    """One key. `seen_at`: wall seconds."""

    role: str
    seen_at: float
    connections: int = 0


class Visitors:
    """All keys that have been heard, the one heard last at the end."""

    def __init__(self) -> None:
        self._visitors: OrderedDict[str, Visitor] = OrderedDict()
        self._peers: dict[tuple[Side, Peer], str] = {}

    def heard(self, who: Identity, side: Side, peer: Peer, wall: float) -> None:
        """It said something."""
        if who is LOCAL:
            return
        visitor = self._visitors.get(who.name)
        if visitor is None:
            visitor = self._visitors[who.name] = Visitor(who.role, wall)
        visitor.role, visitor.seen_at = who.role, wall
        self._visitors.move_to_end(who.name)
        if (side, peer) not in self._peers:
            self._peers[side, peer] = who.name
            visitor.connections += 1
        if len(self._visitors) > NAMES_MAX:
            self._visitors.popitem(last=False)

    def gone(self, side: Side, peer: Peer) -> None:
        """This connection has ended."""
        visitor = self._visitors.get(self._peers.pop((side, peer), ""))
        if visitor is not None and visitor.connections:
            visitor.connections -= 1

    def reply(self, rid: str, keys_from: int) -> KeysReply:
        """One page of them, by name."""
        page = sorted(self._visitors.items())[keys_from : keys_from + KEYS_PER_PAGE]
        views = (KeyView(name=name, role=v.role, connections=v.connections, seen_at=v.seen_at) for name, v in page)
        return KeysReply(rid=rid, keys=tuple(views), keys_total=len(self._visitors))
