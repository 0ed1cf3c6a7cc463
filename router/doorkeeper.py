"""Who may come in at which of the router's endpoints, and what is said of those who may not.

Pure. The keys that are known come as entries of the peers file; a request is libzmq's question about one connection
(ZAP, ZeroMQ RFC 27). Whatever is not let in for a reason that is written here is not let in.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.peers import PeerEntry
from common.roles import ROLES, Identity, Side

ZAP_VERSION = b"1.0"
DOMAINS: dict[str, Side] = {"genserve/client": "client", "genserve/worker": "worker"}
ENDPOINT_OF: dict[str, str] = {"client": "client endpoint", "worker": "worker endpoint"}
_REQUEST_FRAMES_MIN = 6  # version, request id, domain, address, routing id, mechanism; then credentials, if any
ALLOWED, DENIED, FAILED = b"200", b"400", b"500"
SAID_AT_ONCE = 5  # refusals of one kind; then one in REPEAT_AFTER_S
REPEAT_AFTER_S = 10.0
REFUSALS_MAX = 1024  # kinds of them remembered at once
# Errors of a handshake as libzmq numbers them (zmq.h, ZMQ_PROTOCOL_ERROR_*).
_CRYPTOGRAPHIC, _MISMATCH = 0x11000001, 0x11000002
_TIMED_OUT = 11  # EAGAIN


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one question. `user`: the key's name where it is let in; `cause`, `detail`: why it is not."""

    status: bytes
    side: Side | None = None
    address: str = ""
    user: str = ""
    name: str = ""  # of the key, where it is known, let in or not
    public_key: str = ""
    cause: str = ""
    detail: str = ""


class Register:
    """The peers file as the doorkeeper reads it."""

    def __init__(self, entries: Sequence[PeerEntry], raw: Mapping[str, bytes]) -> None:
        """`raw`: the 32 bytes of each entry's public key."""
        self._by_key = {raw[entry.public_key]: entry for entry in entries}
        self._valid = {entry.name: entry for entry in entries if entry.valid}
        self.inside: dict[Side, dict[str, Identity]] = {
            side: {
                entry.name: Identity(entry.name, entry.role)
                for entry in self._valid.values()
                if ROLES[entry.role].side == side
            }
            for side in ("client", "worker")
        }

    def __len__(self) -> int:
        return len(self._valid)

    def find(self, public_key: bytes) -> PeerEntry | None:
        """The entry of this key, valid or not."""
        return self._by_key.get(public_key)

    def put_out(self, later: "Register") -> list[str]:
        """The names whose open connections count no more under `later`: revoked, replaced, or of another role."""
        return [
            name
            for name, entry in self._valid.items()
            if (successor := later._valid.get(name)) is None
            or (successor.public_key, successor.role) != (entry.public_key, entry.role)
        ]


def judge(request: Sequence[bytes], register: Register) -> Verdict:
    """The verdict on a ZAP request: `request` from its version frame on."""
    if len(request) < _REQUEST_FRAMES_MIN or request[0] != ZAP_VERSION:
        return Verdict(FAILED, cause="zap", detail="libzmq asks in a way that is not understood")
    _, _, domain, address, _, mechanism, *credentials = request
    side, where = DOMAINS.get(domain.decode("utf-8", "replace")), address.decode("utf-8", "replace")
    if side is None:
        return Verdict(DENIED, None, where, cause="wrong_domain", detail=f"there is no endpoint {domain!r}")
    if mechanism != b"CURVE" or len(credentials) != 1:
        text = f"it shows no CURVE key but {mechanism.decode('ascii', 'replace')}"
        return Verdict(DENIED, side, where, cause="no_key", detail=text)
    entry = register.find(credentials[0])
    if entry is None:
        text = "this public key is none of the peers file's"
        return Verdict(DENIED, side, where, cause="unknown_key", detail=text)
    known = {"name": entry.name, "public_key": entry.public_key}
    if not entry.valid:
        return Verdict(DENIED, side, where, cause="revoked_key", detail=f"the key {entry.name!r} is revoked", **known)
    if ROLES[entry.role].side != side:
        text = f"the {entry.role} key {entry.name!r} has nothing to do at the {ENDPOINT_OF[side]}"
        return Verdict(DENIED, side, where, cause="wrong_endpoint", detail=text, **known)
    return Verdict(ALLOWED, side, where, user=entry.name, **known)


def reply(request: Sequence[bytes], verdict: Verdict) -> list[bytes]:
    """The ZAP reply: version, request id, status, its text, User-Id, metadata."""
    request_id = request[1] if len(request) > 1 else b""
    text = b"" if verdict.status == ALLOWED else b"docs/keys.md"
    return [ZAP_VERSION, request_id, verdict.status, text, verdict.user.encode(), b""]


def broken_off(value: int, *, protocol: bool) -> tuple[str, str]:
    """(cause, detail) of a handshake that never came as far as a key. `value`: libzmq's number for it."""
    if protocol and value == _MISMATCH:
        return "no_key", "it speaks without CURVE: it has no key"
    if protocol and value == _CRYPTOGRAPHIC:
        return "wrong_server_key", "its key file names another router's public key, or what it sent was forged"
    if protocol:
        return "garbled", f"it broke the protocol of the handshake (error {value:#x})"
    if value == _TIMED_OUT:
        return "silent", "it connected and did not say who it is in time"
    return "left", "it left during the handshake or gave up waiting: it has no key, or is no peer of GenServe"


NO_ZMTP = ("garbled", "what it sent is not ZeroMQ's protocol")


@dataclass(slots=True)
class _Told:
    since_now: float
    said: int = 0
    unsaid: int = 0


@dataclass(slots=True)
class Refusals:
    """Which refusals are said: of each kind the first few at once, then their number, every REPEAT_AFTER_S."""

    total: int = 0
    _told: OrderedDict[tuple[str, ...], _Told] = field(default_factory=OrderedDict)

    def again(self, kind: tuple[str, ...], now: float) -> int | None:
        """One more: how many of its kind this is since it was last said, or None where it is not to be said now."""
        self.total += 1
        told = self._told.get(kind)
        if told is None:
            told = self._told[kind] = _Told(now)
            if len(self._told) > REFUSALS_MAX:
                self._told.popitem(last=False)
        elif now - told.since_now >= REPEAT_AFTER_S:
            told.since_now, told.said = now, SAID_AT_ONCE - 1
        told.unsaid += 1
        if told.said >= SAID_AT_ONCE:
            return None
        times, told.unsaid = told.unsaid, 0
        told.said += 1
        return times
