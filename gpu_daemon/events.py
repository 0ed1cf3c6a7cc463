"""What a session is told and what it asks for: the whole surface of its pure room.

Pure: plain values. Payloads are passed through untouched; their bytes are nobody's business here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from common.codec import Buffer
from common.messages import Message

# --- events: what happened ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by."""


@dataclass(frozen=True, slots=True)
class RouterSaid:
    """A message of the router."""

    message: Message
    payload: Sequence[Buffer] = ()


@dataclass(frozen=True, slots=True)
class EngineStarted:
    """An engine process runs; it is not ready yet."""

    pid: int


@dataclass(frozen=True, slots=True)
class EngineSaid:
    """A message of the engine that was started last."""

    message: Message
    payload: Sequence[Buffer] = ()


@dataclass(frozen=True, slots=True)
class EngineDied:
    """The engine process has ended and is reaped."""

    how: str  # 'was killed by SIGKILL', 'ended with status 1'


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """The operator wants this daemon to finish and leave."""


Event: TypeAlias = Tick | RouterSaid | EngineStarted | EngineSaid | EngineDied | DrainAsked

# --- commands: what to do ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToRouter:
    """Send this to the router, in order."""

    message: Message
    payload: Sequence[Buffer] = ()


@dataclass(frozen=True, slots=True)
class ToEngine:
    """Send this to the engine."""

    message: Message
    payload: Sequence[Buffer] = ()


@dataclass(frozen=True, slots=True)
class KillEngine:
    """End the engine process at once; EngineDied follows."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Connect to the router afresh: this connection has been silent for too long."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Everything is said and done: end this process."""


@dataclass(frozen=True, slots=True)
class Log:
    """Write a line of the log."""

    level: str
    event: str
    fields: Mapping[str, Any] = field(default_factory=dict)


Command: TypeAlias = ToRouter | ToEngine | KillEngine | Reconnect | Leave | Log
