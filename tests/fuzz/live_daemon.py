"""The real daemon, control process and no-op engine, under a router's mutated frames; the router is played here.

In rounds. First anything is said (`wild`), then only what must be refused, while one canary is being drawn and another
waits: each such frame is answered ERROR, they are counted to the last, and a REGISTER asked for afterwards lists the
same two tokens as one asked for before. Then a canary is drawn, and its picture is the one that was ordered.
"""

import hashlib
import random
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress

import zmq
from msgspec.structs import replace

from common.codec import FROM_WORKER, TO_WORKER, encode
from common.errors import ProtocolError
from common.messages import (
    Bye,
    Credit,
    Dispatch,
    Done,
    Drain,
    ErrorReply,
    Fail,
    Fenced,
    Heartbeat,
    Message,
    Register,
    ResultAck,
    Resync,
    Started,
    Token,
    Welcome,
)
from common.sockets import FRAME_BYTES_MAX, Socket, router_socket
from gpu_daemon.engine.noop import colour_of
from tests.fuzz.grammar import Known, router_message
from tests.fuzz.live import ANSWER_WITHIN_S, Watched
from tests.fuzz.mutate import Frames, frames_of, mutated
from tests.fuzz.wire import raw_bytes
from tests.gpu_daemon.fake_router import job_order
from tests.gpu_daemon.process import Daemon
from tests.ports import free_endpoint

ROUND_FRAMES = 500
DRAIN_EVERY = 40
VALID_SHARE = 0.25
NOOP_STEP_S = 0.005
LONG_STEPS = 1000  # five seconds: longer than a round of refusals
WAIT_MS = 20


class Line:
    """A ROUTER that speaks with one daemon, whose every word fits the protocol."""

    def __init__(self, endpoint: str = "") -> None:
        self._context: zmq.Context[Socket] = zmq.Context()
        self.endpoint = endpoint or free_endpoint()
        self._socket = router_socket(self._context, self.endpoint)
        self.peer = b""
        self.pictures: dict[Token, bytes] = {}

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()

    def send(self, frames: Frames) -> None:
        self._socket.send_multipart([self.peer, *frames])

    def heard(self, wait_ms: int = 0) -> list[Message]:
        """All that is there."""
        found: list[Message] = []
        while self._socket.poll(0 if found else wait_ms):
            self.peer, *frames = self._socket.recv_multipart()
            message = FROM_WORKER.decode(frames)
            if isinstance(message, Done):
                self.pictures = {message.token: b"".join(frames[3:])}
            found.append(message)
        return found


class DaemonFuzz:
    """One daemon process and the router that lies to it."""

    def __init__(self, daemon: Daemon, line: Line, seed: str, frames: int) -> None:
        self.daemon, self.line, self.seed, self.frames = daemon, line, seed, frames
        self.done = Counter[str]()
        again = f"python -m tests.fuzz --part daemon --seed {seed} --frames {frames}"
        self.watched = Watched(daemon.process.pid, daemon.log_path, again=again)
        self.known = Known()
        self.epoch = 0
        self.jobs = 0
        self.unread: deque[Message] = deque()

    def run(self, over: Callable[[], bool] = lambda: False) -> None:
        """Until `frames` mutated frames have been sent, or the time is over."""
        rounds = 0
        self.watched.until("REGISTER", lambda: self._listen(WAIT_MS, welcome=True))
        while self.done["mutated"] < self.frames and not over():
            chance = random.Random(f"{self.seed}:{rounds}")
            self.watched.sent.clear()
            self._wild(chance)
            self._refused(chance)
            self._canary(chance)
            self.watched.check_log()
            self.watched.check_memory(self.done["mutated"] / self.frames)
            rounds += 1
        self.done["rounds"] = rounds

    def replay(self, kept: Iterable[Frames]) -> None:
        """Send each of these, and see that all is well, before the next one is sent."""
        self.watched.until("REGISTER", lambda: self._listen(WAIT_MS, welcome=True))
        for frames in kept:
            self.watched.sent.clear()
            self._send(frames)
            self._hear_out()
            self.watched.check_log()

    def leave(self) -> None:
        """It drains and ends as if nothing had been."""
        self.line.send(encode(Drain()))
        self.watched.until("BYE", lambda: any(isinstance(m, Bye) for m in self._listen(WAIT_MS)))
        assert self.daemon.process.wait(ANSWER_WITHIN_S) == 0, self.watched.fail("it ended otherwise than it should")

    # --- lies ------------------------------------------------------------------------------------

    def _lie(self, chance: random.Random) -> tuple[Frames, bool, Message | None]:
        """Frames, whether they were mutated, and what they are to the daemon."""
        said = router_message(chance, self.known)
        wrong = chance.random() >= VALID_SHARE
        frames = mutated(chance, said) if wrong else frames_of(said)
        try:
            return frames, wrong, TO_WORKER.decode(frames)
        except ProtocolError:
            return frames, wrong, None

    def _wild(self, chance: random.Random) -> None:
        for number in range(ROUND_FRAMES):
            frames, wrong, message = self._lie(chance)
            if isinstance(message, Drain) or not frames or max(map(len, frames)) > FRAME_BYTES_MAX:
                continue  # it would be obeyed; or libzmq would drop it, and the connection with it
            self.done["mutated"] += wrong
            self._send(frames)
            if number % DRAIN_EVERY == 0:
                self._listen(welcome=True)

    def _refused(self, chance: random.Random) -> None:
        """Frames that must be refused, while there is something in hand that they could change."""
        self._begin_anew()
        running, waiting = (self._dispatch(steps=LONG_STEPS) for _ in range(2))
        self.watched.until("STARTED", lambda: any(isinstance(m, Started) for m in self._listen(WAIT_MS)))
        before = self._begin_anew(keep=True)
        assert [held.token for held in before.tokens] == [running, waiting], self.watched.fail(f"it holds {before}")
        sent = 0
        self._hear_out()
        errors: list[Message] = []
        while sent < ROUND_FRAMES:
            frames, wrong, message = self._lie(chance)
            refused = wrong and message is None and frames and frames[1:2] != [b"ERROR"]
            if not refused or max(map(len, frames)) > FRAME_BYTES_MAX:
                continue
            self._send(frames)
            sent += 1
            if sent % DRAIN_EVERY == 0:
                errors += self._only_errors(0)
        self.watched.until("ERROR for each", lambda: errors.extend(self._only_errors(WAIT_MS)) or len(errors) >= sent)
        if len(errors) != sent:
            raise self.watched.fail(f"{sent} frames had to be refused; {len(errors)} were answered so")
        after = self._begin_anew(keep=True)
        if after.tokens != before.tokens:
            raise self.watched.fail(f"frames that were refused changed what it holds: {after.tokens}")
        self.done["mutated"] += sent
        self.done["refused"] += sent

    def _only_errors(self, wait_ms: int) -> list[Message]:
        found = [m for m in self._listen(wait_ms) if not isinstance(m, Heartbeat)]
        others = [m for m in found if not isinstance(m, ErrorReply) and m.NAME != b"PROGRESS"]
        if others:
            raise self.watched.fail(f"what had to be refused was answered {others}")
        return [m for m in found if isinstance(m, ErrorReply)]

    # --- the truth -------------------------------------------------------------------------------

    def _begin_anew(self, *, keep: bool = False) -> Register:
        """Have it register: what it holds is kept, or dropped."""
        self.line.send(encode(Resync()))
        heard: list[Message] = []

        def registered() -> Register | None:
            heard.extend(self._listen(WAIT_MS))
            return next((m for m in reversed(heard) if isinstance(m, Register)), None)

        register: Register = self.watched.until("REGISTER", registered)
        self._welcome(register, keep=keep)

        def settled() -> bool:
            heard.extend(self._listen(WAIT_MS))
            now = [m for m in heard if getattr(m, "epoch", None) == self.epoch]
            ready = any(isinstance(m, Heartbeat) and m.state == "ready" for m in now)
            granted = max((m.granted_total for m in now if isinstance(m, Credit)), default=0)
            return ready and granted == 2 - (len(register.tokens) if keep else 0)

        self.watched.until("HEARTBEAT and CREDIT of a daemon that is ready", settled)
        return register

    def _welcome(self, register: Register, *, keep: bool) -> None:
        self.epoch = max(self.epoch, self.known.epoch) + 1
        self.known.nonce, self.known.epoch = register.nonce, self.epoch
        tokens = tuple(held.token for held in register.tokens)
        welcome = Welcome(nonce=register.nonce, epoch=self.epoch, heartbeat_interval_s=0.2, dead_after_s=5.0)
        self.line.send(encode(replace(welcome, keep=tokens if keep else ())))

    def _dispatch(self, *, steps: int, seed: int = 0) -> Token:
        self.jobs += 1
        token = Token(job_id=f"{self.jobs:032x}", dispatch=1)
        order = job_order(steps=steps, seed=seed)
        self.line.send(encode(Dispatch(epoch=self.epoch, token=token, job=order, remaining_s=600.0)))
        return token

    def _canary(self, chance: random.Random) -> None:
        """It draws what it is ordered to."""
        self._begin_anew()
        seed = chance.getrandbits(32)
        token = self._dispatch(steps=2, seed=seed)

        def drawn() -> Done | None:
            return next((m for m in self._listen(WAIT_MS) if isinstance(m, Done) and m.token == token), None)

        done: Done = self.watched.until("picture", drawn)
        data = self.line.pictures[token]
        assert hashlib.sha256(data).hexdigest() == done.picture.sha256
        assert bytes(colour_of(seed)) in data, self.watched.fail("the canary is another picture")
        self.line.send(encode(ResultAck(token=token)))
        self.done["canaries"] += 1

    def _listen(self, wait_ms: int = 0, *, welcome: bool = False) -> list[Message]:
        """What it says; known from here on."""
        heard = self.line.heard(wait_ms)
        for message in heard:
            self.done[f"heard {message.NAME.decode()}"] += 1
            if isinstance(message, Register) and welcome:
                self._welcome(message, keep=True)
            elif isinstance(message, Done | Fail) and welcome:
                end = ResultAck(token=message.token) if message.epoch % 2 else Fenced(token=message.token)
                self.line.send(encode(end))
            if (token := getattr(message, "token", None)) is not None:
                self.known.own.append({"job_id": token.job_id, "dispatch": token.dispatch})
        return heard

    def _hear_out(self) -> None:
        """Whatever is still on its way: an unmistakable frame is answered after it."""
        self.line.send([b"GS1", b"BARRIER", b"\x80"])

        def answered() -> bool:
            return any(isinstance(m, ErrorReply) and "BARRIER" in m.message for m in self._listen(WAIT_MS))

        self.watched.until("answer", answered)

    def _send(self, frames: Frames) -> None:
        self.watched.sent.append(("router", frames))
        self.line.send(frames)

    # --- below -----------------------------------------------------------------------------------

    def below_zeromq(self, connections: int) -> None:
        """Whatever listens where its router was, it comes back to the router."""
        chance = random.Random(f"{self.seed}:wire")
        endpoint = self.line.endpoint
        self.line.close()
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        with socket.create_server((host, int(port))) as listener:
            listener.settimeout(ANSWER_WITHIN_S)
            for _ in range(connections):
                peer, _ = listener.accept()
                with peer, suppress(OSError):
                    for piece in raw_bytes(chance):
                        peer.sendall(piece)
                    peer.settimeout(0.05)
                    peer.recv(4096)
                self.done["raw connections"] += 1
        self.line = Line(endpoint)
        self.watched.until("word", lambda: self._listen(WAIT_MS))
        self._canary(chance)
        self.watched.check_log()
