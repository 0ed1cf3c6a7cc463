"""What the router sends: a message to a peer, with the files that belong to it out of the journal.

A message that cannot be sent, or whose files cannot be read, becomes an event, never a silent loss. Nothing waits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import zmq
from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from common.codec import encode
from common.errors import GenServeError, ProtocolError
from common.messages import Dispatch, ErrorReply, Message
from common.roles import Side
from common.sockets import Socket
from router.commands import ToClient, ToWorker
from router.events import InputsLost, SendFailed
from router.journal import Journal

_DONTWAIT = int(zmq.DONTWAIT)
_MORE = int(zmq.DONTWAIT) | int(zmq.SNDMORE)


class Outgoing:
    """Sends through the two ROUTER sockets."""

    def __init__(self, sockets: Mapping[Side, Socket], journal: Journal, logger: FilteringBoundLogger) -> None:
        self._sockets = sockets
        self._journal = journal
        self._logger = logger

    def with_inputs(self, command: ToWorker, wall: float) -> ToWorker | InputsLost:
        """A DISPATCH with what its job starts from, or that this cannot be read."""
        assert isinstance(command.message, Dispatch)
        try:
            return replace(command, payload=self._journal.fetch_inputs(command.inputs_of))
        except GenServeError as error:
            return InputsLost(wall=wall, peer=command.peer, token=command.message.token, message=error.message)

    def send(self, command: ToClient | ToWorker, wall: float) -> SendFailed | None:
        """Send it now, or tell why not."""
        message, payload = command.message, command.payload
        if isinstance(command, ToClient) and command.picture_of:
            try:
                payload = self._picture(command.picture_of)
            except GenServeError as error:
                message = ErrorReply(rid=getattr(message, "rid", ""), code=error.code, message=error.message)
                payload = ()
        side: Side = "client" if isinstance(command, ToClient) else "worker"
        try:
            self._put(side, command.peer, message, payload)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                raise
            gone = error.errno == zmq.EHOSTUNREACH
            return SendFailed(wall=wall, side=side, peer=command.peer, name=message.NAME, gone=gone)
        return None

    def _put(self, side: Side, peer: bytes, message: Message, payload: Sequence[Any]) -> None:
        try:
            frames = encode(message, payload)
        except ProtocolError as error:
            self._logger.exception("router.bug", while_sending=message.NAME.decode())
            frames = encode(ErrorReply(rid=getattr(message, "rid", ""), code="internal", message=error.message))
            payload = ()
        send = self._sockets[side].send
        send(peer, _MORE)  # what can fail, fails here, before anything is on its way
        send(frames[0], _MORE)
        send(frames[1], _MORE)
        if not payload:
            send(frames[2], _DONTWAIT)
            return
        send(frames[2], _MORE)
        for part in payload[:-1]:
            send(part, _MORE, False, False)
        send(payload[-1], _DONTWAIT, False, False)

    def _picture(self, job_id: str) -> Sequence[zmq.Frame]:
        found = self._journal.fetch(job_id)
        if found is None:
            raise GenServeError("not_found", f"the picture of job {job_id} is no longer kept")
        return found
