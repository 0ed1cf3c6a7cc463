"""The door of a router with keys: who is let in, whose each message is, and who is put out.

Served by the router's own loop, so that it is alive exactly when the loop is. libzmq asks here about every connection
(ZAP); its monitors tell of those that break off before, and of every end. Each message carries the name of the key
that its connection was let in with. A change of the peers file is noticed within a second: whose key counts no more
is refused by that name at once, and its sockets are shut.

Knows sockets, descriptors and the peers file; who may do what is decided in doorkeeper.py and clients.py.
"""

import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from structlog.typing import FilteringBoundLogger

from common import log
from common.errors import GenServeError
from common.keys import KeyFile, raw_key, read_peers, show_key
from common.roles import Identity, Side
from common.sockets import Curve, Socket, monitor_socket, router_socket, zap_socket
from router.doorkeeper import DENIED, DOMAINS, FAILED, NO_ZMTP, Refusals, Register, Verdict, broken_off, judge, reply
from router.events import Event, KeyRevoked, Peer, PeerGone

LOOK_INTERVAL_S = 0.25  # at the peers file
REQUESTS_MAX = 1024  # answered in a row
EVENTS_MAX = 4096  # of one monitor, in a row
APPROVED_MAX = 4096  # addresses with connections that have not spoken yet
MONITOR_EVENTS = 20_000  # that may wait while the loop is busy: beyond, libzmq itself would wait
USER_ID = "User-Id"
_DONTWAIT = int(zmq.DONTWAIT)
_ACCEPTED, _DISCONNECTED = int(zmq.EVENT_ACCEPTED), int(zmq.EVENT_DISCONNECTED)
_BROKE_OFF, _PROTOCOL = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL), int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
_WATCHED = _ACCEPTED | _DISCONNECTED | _BROKE_OFF | _PROTOCOL


@dataclass(slots=True)
class Connection:
    """One that is open. `address`: (host, port) of its other end; None where it could not be told any more."""

    address: tuple[str, int] | None
    peer: Peer = b""  # its routing id, once it has spoken
    name: str = ""  # of its key, likewise

    @property
    def host(self) -> str:
        """Where it comes from, '' if unknown."""
        return self.address[0] if self.address else ""


class Door:
    """Both endpoints of one router. To be closed with its context."""

    def __init__(
        self, context: zmq.Context[Socket], key: KeyFile, peers_file: Path, *, logger: FilteringBoundLogger, now: float
    ) -> None:
        """Raises SettingsError where the peers file cannot be read: a file that is not understood lets nobody in."""
        self._context = context
        self._key = key
        self._peers_file = peers_file
        self._logger = logger
        self._stamp = _stamp(peers_file)
        self._register = _read(peers_file)
        self._looked_now = now
        self._zap = zap_socket(context)
        self._monitors: dict[Side, Socket] = {}
        self._open: dict[Side, dict[int, Connection]] = {"client": {}, "worker": {}}  # by descriptor
        self._spoken: dict[Side, dict[Peer, Connection]] = {"client": {}, "worker": {}}
        self._broke_off: dict[Side, tuple[str, str]] = {}  # why the connection whose end comes next did
        self._judged: dict[tuple[Side, str], int] = {}  # connections from a host that were judged and have not spoken
        self._gone: dict[Side, list[Peer]] = {"client": [], "worker": []}
        self._revoked: list[str] = []
        self._refusals = Refusals()
        self._failed = False

    def listen(self, side: Side, endpoint: str) -> Socket:
        """A ROUTER that lets in who may. Raises address_in_use."""
        domain = next(name for name, of in DOMAINS.items() if of == side)

        def watch(listening: Socket) -> None:
            self._monitors[side] = monitor_socket(self._context, listening, _WATCHED, MONITOR_EVENTS)

        return router_socket(self._context, endpoint, Curve(self._key, domain), watch=watch)

    @property
    def sockets(self) -> list[Socket]:
        """To be polled; `serve` is told of those that are readable."""
        return [self._zap, *self._monitors.values()]

    def alive(self) -> bool:
        """Is everyone who may come in let in? False after a question that could not be judged, until one can be."""
        return not self._failed and not self._zap.closed

    def close(self) -> None:
        """Nobody comes in any more."""
        for each in self.sockets:
            each.close(linger=0)

    # --- one turn ------------------------------------------------------------------------------

    def serve(self, ready: Mapping[Any, int], now: float) -> None:
        """Answer who asks, and note who came and went."""
        requests = self._requests() if self._zap in ready else []
        for side, monitor in self._monitors.items():  # before the answers: a peer that waits for one is still connected
            if monitor in ready or requests:
                self._read_monitor(side, monitor, now)
        for envelope, request in requests:
            self._answer(envelope, request, now)
        if now - self._looked_now >= LOOK_INTERVAL_S:
            self._looked_now = now
            self._look_at_peers()

    def parted(self, side: Side) -> bool:
        """Has anybody left whose last words may still have to be read?"""
        return bool(self._gone[side])

    def changes(self, wall: float, unread: Mapping[Side, bool]) -> list[Event]:
        """What has happened to connections. Of a side that is `unread`, those who left are told of later."""
        events: list[Event] = [KeyRevoked(wall=wall, name=name) for name in self._revoked]
        self._revoked = []
        for side, gone in self._gone.items():
            if gone and not unread.get(side):
                events += [PeerGone(wall=wall, side=side, peer=peer) for peer in gone]
                self._gone[side] = []
        return events

    def whose(self, side: Side, peer: Peer, frame: zmq.Frame, now: float) -> Identity | None:
        """Who sent the message of this frame; None: nobody who still may, and the connection is shut."""
        name: Any = frame.get(USER_ID)
        who = self._register.inside[side].get(name)
        if who is None:
            self._put_out(side, frame, name, now)
            return None
        connection = self._spoken[side].get(peer)
        if connection is None or connection.name != name:
            self._first_word(side, peer, frame, name)
        return who

    # --- connections ---------------------------------------------------------------------------

    def _first_word(self, side: Side, peer: Peer, frame: zmq.Frame, name: str) -> None:
        if self._spoken[side].pop(peer, None) is not None:  # another one took its routing id
            self._gone[side].append(peer)
        connection = self._open[side].get(int(frame.get(zmq.SRCFD)))
        if connection is None:  # it said this and left: its end is known before its words
            self._gone[side].append(peer)
            return
        if connection.peer and self._spoken[side].pop(connection.peer, None) is not None:
            self._gone[side].append(connection.peer)  # likewise, and its descriptor is somebody else's by now
        connection.peer, connection.name = peer, name
        self._spoken[side][peer] = connection
        self._unjudge(side, connection.host)

    def _put_out(self, side: Side, frame: zmq.Frame, name: str, now: float) -> None:
        """A message of a key that counts no more: it was on its way when that happened."""
        descriptor = int(frame.get(zmq.SRCFD))
        host, detail = str(frame.get("Peer-Address")), f"the key {name!r} is revoked"
        self._refused(side, host, "revoked_key", detail, now, name=name)
        connection = self._open[side].get(descriptor)
        if connection is not None:
            _shut(descriptor, connection.address)

    def _read_monitor(self, side: Side, monitor: Socket, now: float) -> None:
        for _ in range(EVENTS_MAX):
            try:
                head, _endpoint = monitor.recv_multipart(_DONTWAIT)
            except zmq.Again:
                return
            event, value = struct.unpack("=HI", head)
            if event == _ACCEPTED:
                self._open[side][value] = Connection(_other_end(value))
            elif event == _DISCONNECTED:
                self._ended(side, value, now)
            else:  # its end comes next: both are said by libzmq's one I/O thread
                self._broke_off[side] = broken_off(value, protocol=event == _PROTOCOL)

    def _ended(self, side: Side, descriptor: int, now: float) -> None:
        connection = self._open[side].pop(descriptor, None)
        why = self._broke_off.pop(side, None)
        if connection is None:
            return
        if connection.peer:
            if self._spoken[side].get(connection.peer) is connection:
                del self._spoken[side][connection.peer]
                self._gone[side].append(connection.peer)
            return
        judged = self._unjudge(side, connection.host)
        if why is not None or not judged:
            cause, detail = why or NO_ZMTP
            self._refused(side, connection.host, cause, detail, now)

    # --- questions -----------------------------------------------------------------------------

    def _requests(self) -> list[tuple[list[bytes], list[bytes]]]:
        """(routing id and delimiter, request) of those who ask."""
        found = []
        for _ in range(REQUESTS_MAX):
            try:
                frames = self._zap.recv_multipart(_DONTWAIT)
            except zmq.Again:
                break
            found.append((frames[:2], frames[2:]))
        return found

    def _answer(self, envelope: list[bytes], request: list[bytes], now: float) -> None:
        """Judge one request. Nothing that goes wrong here may leave anybody without an answer, or let anybody in."""
        try:
            verdict = judge(request, self._register)
            if verdict.status == DENIED and self._look_at_peers():  # a key made a moment ago: libzmq asks only once
                verdict = judge(request, self._register)
            self._note(verdict, request, now)
        except Exception:
            self._logger.exception("door.bug")
            verdict = Verdict(FAILED)
        self._failed = verdict.status == FAILED
        self._zap.send_multipart([*envelope, *reply(request, verdict)], _DONTWAIT)

    def _note(self, verdict: Verdict, request: list[bytes], now: float) -> None:
        if verdict.side is not None and len(self._judged) < APPROVED_MAX:
            at = (verdict.side, verdict.address)
            self._judged[at] = self._judged.get(at, 0) + 1
        if verdict.user:
            self._logger.debug("peer.authenticated", side=verdict.side, peer_name=verdict.user, address=verdict.address)
            return
        shown = verdict.public_key or (
            show_key(request[-1]) if verdict.cause == "unknown_key" and len(request[-1]) == 32 else ""
        )
        more = {name: value for name, value in (("name", verdict.name), ("public_key", shown)) if value}
        failed = verdict.status != DENIED
        self._refused(verdict.side, verdict.address, verdict.cause, verdict.detail, now, failed=failed, **more)

    def _unjudge(self, side: Side, host: str) -> bool:
        """One connection from `host` less that was judged and has not spoken; was there one?"""
        left = self._judged.get((side, host), 0) - 1
        if left > 0:
            self._judged[side, host] = left
        else:
            self._judged.pop((side, host), None)
        return left >= 0

    def _refused(
        self, side: Side | None, host: str, cause: str, detail: str, now: float, *, failed: bool = False, **more: str
    ) -> None:
        times = self._refusals.again((str(side), host, cause, *more.values()), now)
        if times is not None:
            fields = {"side": side, "address": host, "cause": cause, "detail": detail, "times": times, **more}
            told = {name if name != "name" else "peer_name": value for name, value in fields.items()}
            told["total"] = self._refusals.total
            log.write(self._logger, "error" if failed else "warning", "peer.refused", told)

    # --- the peers file ------------------------------------------------------------------------

    def _look_at_peers(self) -> bool:
        """Read the peers file again if it has changed; is it another one now?"""
        stamp = _stamp(self._peers_file)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            later = _read(self._peers_file)
        except GenServeError as error:  # a slip of the operator's must not put out the whole fleet
            self._logger.error("peers.unreadable", message=error.message, now="the former peers stay in force")  # noqa: TRY400  # the cause is in the file
            return False
        names = self._register.put_out(later)
        self._register = later
        self._logger.info("peers.read", file=str(self._peers_file), peers=len(later), put_out=names)
        if names:
            self._cut(names)
        return True

    def _cut(self, names: list[str]) -> None:
        """End every connection of these keys; of who has not spoken it is not known whose they are: they come again."""
        self._revoked += names
        for side, monitor in self._monitors.items():
            self._read_monitor(side, monitor, self._looked_now)
            for descriptor, connection in list(self._open[side].items()):
                if connection.name in names or not connection.peer:
                    _shut(descriptor, connection.address)


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes whenever the file does; () where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _read(path: Path) -> Register:
    entries = read_peers(path)
    return Register(entries, {entry.public_key: raw_key(entry.public_key) for entry in entries})


def _other_end(descriptor: int) -> tuple[str, int] | None:
    """Whom a descriptor of libzmq's is connected to; None where it is closed already."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            address = copy.getpeername()
    except OSError:
        return None
    return (address[0], address[1])


def _shut(descriptor: int, address: tuple[str, int] | None) -> None:
    """End libzmq's connection, if that descriptor is still the one to `address`."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            if address is None or copy.getpeername()[:2] == address:
                copy.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended by itself
