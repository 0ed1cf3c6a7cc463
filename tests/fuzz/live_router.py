"""The real router process under mutated frames, at both of its doors.

In rounds. Each begins with four canaries: jobs of a model that only one honest daemon serves; one is done, one is being
drawn, one is with the daemon, one waits. Then everybody says what they like (`wild`), and in the end only what must be
refused (`refused`): every such frame is answered ERROR or REJECTED, they are counted to the last, and STATUS, every
canary's JOB, the dead letters and every row of the journal are what they were. At last the canaries are drawn, and each
client gets its own picture.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw
import msgpack
import zmq

from common.codec import FROM_CLIENT, FROM_WORKER, TO_CLIENT, TO_WORKER
from common.errors import ProtocolError
from common.messages import Accepted, Message, Requeue, Submit
from common.sockets import FRAME_BYTES_MAX
from tests.fuzz.freeze import difference, freeze
from tests.fuzz.grammar import Known, register
from tests.fuzz.live import Watched
from tests.fuzz.mutate import Frames, frames_of
from tests.fuzz.voices import Voice
from tests.fuzz.wire import raw_connections
from tests.router.process import Dealer, RouterProcess

CLIENTS, DAEMONS = 3, 5
ROUND_FRAMES = 600
DRAIN_EVERY = 40  # frames
CANARY = {"name": "canary", "width": 64, "height": 64, "side_min": 16, "steps": 4}
CANARIES = 4
RAW_EVERY_ROUNDS = 4
HANDLED_REFUSALS = (b"JOB", b"WATCH", b"FETCH", b"CANCEL", b"REQUEUE")
SETTINGS = {
    "GENSERVE_ROUTER_SUSPECT_AFTER_S": "300",  # nothing happens by time while states are compared
    "GENSERVE_ROUTER_DEAD_AFTER_S": "600",
    "GENSERVE_ROUTER_ENDED_JOBS_MAX": "500",
    "GENSERVE_ROUTER_RETRY_BACKOFF_S": "0",
    "GENSERVE_ROUTER_DEAD_LETTERS_MAX": "40",
    "GENSERVE_ROUTER_DEFAULT_MODEL": "fuzz",
}


class Mouth:
    """A connection to the router, and what its voice has heard."""

    def __init__(self, router: RouterProcess, voice: Voice) -> None:
        self.voice = voice
        self.dealer = router.client() if voice.side == "client" else Dealer(router.context, router.workers)
        router.dealers.append(self.dealer)
        self.barriers = 0
        self.reached = False  # the last of them
        self.errors = 0  # refusals heard since the last reset
        self.asked = self.answered = 0  # SUBMIT and REQUEUE, which is answered when inputs are stored, not before

    def drain(self, wait_ms: int = 0) -> list[Message]:
        """All that is there."""
        decode = (TO_CLIENT if self.voice.side == "client" else TO_WORKER).decode
        found = []
        while self.dealer.socket.poll(0 if found else wait_ms):
            message = decode(self.dealer.socket.recv_multipart())
            found.append(message)
            self.errors += message.NAME in (b"ERROR", b"REJECTED")
            self.answered += message.NAME in (b"ACCEPTED", b"REJECTED")
        return found


class RouterFuzz:
    """One router process, those who lie to it, and those who do not."""

    def __init__(self, router: RouterProcess, seed: str, frames: int) -> None:
        self.router, self.seed, self.frames = router, seed, frames
        self.done = Counter[str]()
        process = router.start().process
        assert process is not None
        again = f"python -m tests.fuzz --part router --seed {seed} --frames {frames}"
        self.watched = Watched(process.pid, router.log_path, again=again)
        names = tuple(f"fuzz-{n}" for n in range(DAEMONS))
        self.mouths = [Mouth(router, Voice("client", Known())) for _ in range(CLIENTS)]
        self.mouths += [Mouth(router, Voice("worker", Known(name=name, workers=names))) for name in names]
        self.voices = [mouth.voice for mouth in self.mouths]
        self.honest = router.daemon("honest")
        self.honest.card, self.honest.boot_id = CANARY, "honest"
        self.honest.register()
        self.client = router.client()
        self.spare = Known(name="fuzz-spare")
        self.jobs: deque[str] = deque()  # of the liars, that may still live
        self.rids = 0

    def run(self, over: Callable[[], bool] = lambda: False) -> None:
        """Until `frames` mutated frames have been sent, or the time is over."""
        chance = random.Random(self.seed)
        for mouth in self.mouths[CLIENTS:]:
            self._send(mouth, frames_of(register(chance, mouth.voice.known)))
        rounds = 0
        while self.done["mutated"] < self.frames and not over():
            chance = random.Random(f"{self.seed}:{rounds}")
            self.watched.sent.clear()
            canaries = self._begin_canaries()
            before = self._canary_views(canaries)
            self._wild(chance)
            self._clean_up()
            self._barrier(chance)  # what is said of the ends of those jobs is heard
            assert self._canary_views(canaries) == before, self.watched.fail("a canary was changed")
            self._refused(chance, canaries)
            if rounds % RAW_EVERY_ROUNDS == 0:
                for endpoint in (self.router.clients, self.router.workers):
                    self.done["raw connections"] += raw_connections(chance, endpoint)
            self._finish_canaries(canaries)
            self.watched.check_log()
            self.watched.check_memory(self.done["mutated"] / self.frames)
            assert not self.router.errors, self.watched.fail(f"it says on stderr: {self.router.errors[:2000]}")
            rounds += 1
        self.done["rounds"] = rounds

    def replay(self, kept: Iterable[tuple[str, Frames]]) -> None:
        """Send each of these, and see that all is well, before the next one is sent."""
        chance = random.Random(0)
        speak = {"client": self.mouths[0], "worker": self.mouths[-1]}
        self._send(self.mouths[-1], frames_of(register(chance, self.mouths[-1].voice.known)))
        for side, frames in kept:
            self.watched.sent.clear()
            if max(map(len, frames), default=0) > FRAME_BYTES_MAX:
                self._throw_away(side, frames)
            else:
                self._send(speak[side], frames)
            self._barrier(chance)
            self.watched.check_log()

    # --- speaking --------------------------------------------------------------------------------

    def _send(self, mouth: Mouth, frames: Frames) -> None:
        self.watched.sent.append((mouth.voice.side, frames))
        with suppress(ProtocolError):
            mouth.asked += mouth.voice.side == "client" and isinstance(FROM_CLIENT.decode(frames), Submit | Requeue)
        mouth.dealer.socket.send_multipart(frames)

    def _wild(self, chance: random.Random) -> None:
        for number in range(ROUND_FRAMES):
            mouth = chance.choice(self.mouths)
            frames, wrong = mouth.voice.says(chance)
            self.done["mutated"] += wrong
            if max(map(len, frames), default=0) > FRAME_BYTES_MAX:
                self._throw_away(mouth.voice.side, frames)  # libzmq drops it, and the connection with it
            elif frames:
                self._send(mouth, frames)
            if number % DRAIN_EVERY == 0:
                self._listen(chance)
        self._barrier(chance)

    def _throw_away(self, side: str, frames: Frames) -> None:
        self.done["oversized"] += 1
        endpoint = self.router.clients if side == "client" else self.router.workers
        self.watched.sent.append((side, frames))
        socket = self.router.context.socket(zmq.DEALER)
        socket.connect(endpoint)
        socket.send_multipart(frames)
        socket.close(linger=200)

    def _listen(self, chance: random.Random) -> None:
        for mouth in self.mouths:
            for message in mouth.drain():
                mouth.voice.hears(message, chance, self.voices)
                if isinstance(message, Accepted):
                    self.jobs.append(message.job_id)

    def _barrier(self, chance: random.Random) -> None:
        """All that was sent is answered: each door answers a frame that can be told from all others."""
        for mouth in self.mouths:
            mouth.barriers += 1
            text = f"BARRIER-{mouth.barriers}"
            mouth.dealer.socket.send_multipart([b"GS1", text.encode(), b"\x80"])

            def answered(mouth: Mouth = mouth, text: str = text) -> bool:
                heard = mouth.drain(wait_ms=20)
                for message in heard:
                    mouth.voice.hears(message, chance, self.voices)
                    if isinstance(message, Accepted):
                        self.jobs.append(message.job_id)
                mouth.reached |= any(f"'{text}'" in str(getattr(message, "message", "")) for message in heard)
                return mouth.reached and mouth.answered >= mouth.asked

            mouth.reached = False
            self.watched.until(f"answer to {mouth.voice.side}", answered)
            assert mouth.answered == mouth.asked, self.watched.fail("a SUBMIT was answered twice")
        self._ping()

    def _ping(self) -> None:
        self._ask(b"PING", b"PONG")

    def _ask(self, name: bytes, *answers: bytes, **header: Any) -> tuple[bytes, dict[str, Any]]:
        """An honest question, answered within its time."""
        self.rids += 1
        rid = f"q{self.rids}"
        self.client.send(name, rid=rid, **header)

        def answered() -> tuple[bytes, dict[str, Any]] | None:
            while self.client.socket.poll(20):
                told, found, payload = self.client.receive()
                if found.get("rid") == rid and told in answers:
                    return told, found
                self.client.heard.append((told, found, payload))
            return None

        found: tuple[bytes, dict[str, Any]] = self.watched.until(f"answer to {name!r}", answered)
        return found

    # --- what must be refused --------------------------------------------------------------------

    def _refused(self, chance: random.Random, canaries: list[str]) -> None:
        """Frames that must be refused: each is, and nothing else comes of them."""
        sendings: list[tuple[Mouth, Frames]] = []
        unreadable = 0
        while len(sendings) < ROUND_FRAMES:
            mouth = chance.choice(self.mouths)
            if chance.random() < 0.05:
                sendings.append((mouth, self._handled_refusal(chance, mouth.voice.side)))
                continue
            frames, wrong = mouth.voice.says(chance)
            if not wrong or not _is_refused(mouth.voice.side, frames):
                continue
            unreadable += 1
            sendings.append((mouth, frames))
        before = self._snapshot(canaries)
        for mouth in self.mouths:
            mouth.errors = 0
        for number, (mouth, frames) in enumerate(sendings):
            self._send(mouth, frames)
            if number % DRAIN_EVERY == 0:
                for each in self.mouths:
                    self._only_refusals(each)
        self._barrier(chance)
        self.done["mutated"] += len(sendings)
        self.done["refused"] += len(sendings)
        heard = sum(mouth.errors for mouth in self.mouths) - len(self.mouths)
        if heard != len(sendings):
            raise self.watched.fail(f"{len(sendings)} frames had to be refused; {heard} were answered so")
        after = self._snapshot(canaries)
        before["errors"] += unreadable + len(self.mouths)
        for what, was in before.items():
            changed = difference(freeze(was), freeze(after[what]))
            if changed:
                raise self.watched.fail(f"frames that were refused changed {what}{changed}")

    def _only_refusals(self, mouth: Mouth) -> None:
        for message in mouth.drain():
            if message.NAME not in (b"ERROR", b"REJECTED"):
                raise self.watched.fail(f"what had to be refused was answered {message!r}")

    def _handled_refusal(self, chance: random.Random, side: str) -> Frames:
        """A sound message about what is not there, or of somebody who is not who it says."""
        if side == "client":
            header = {"rid": "x", "job_id": f"{chance.getrandbits(128):032x}"}
            return [b"GS1", chance.choice(HANDLED_REFUSALS), msgpack.packb(header)]
        said = register(chance, self.spare)
        said.header |= {"worker_id": "honest", "boot_id": "another", "models": [{"name": f"new-{chance.random()}"}]}
        return frames_of(said)

    def _snapshot(self, canaries: list[str]) -> dict[str, Any]:
        """Everything that may be seen from outside."""
        status = self._ask(b"STATUS", b"STATUS", workers_from=0)[1]
        stats = status.pop("stats")
        letters = self._ask(b"DEAD_LETTERS", b"DEAD_LETTERS")[1]
        for each in (status, letters):
            del each["rid"]
        stats.pop("uptime_s")
        del status["measures"]["rejected"]  # by code, what rejected_total counts below
        del status["measures"]["oldest_wait_s"]  # of one that waits it tells the time
        for worker in status["workers"]:
            del worker["detail"]  # of one that is away or rests it tells the time
        rejected = stats.pop("rejected_total"), stats.pop("queue_full_total")
        assert rejected[0] >= rejected[1]
        return {
            "errors": stats.pop("protocol_errors_total"),
            "counts": stats,
            "status": status,
            "letters": letters,
            "canaries": self._canary_views(canaries),
            "journal": journal_rows(self.router.state_dir),
        }

    def _clean_up(self) -> None:
        """Cancel whatever the liars have asked for, until only the canaries live."""

        def only_canaries() -> bool:
            while self.jobs:
                self._ask(b"CANCEL", b"CANCELLED", b"JOB", b"ERROR", job_id=self.jobs.popleft())
            stats = self._ask(b"STATUS", b"STATUS")[1]["stats"]
            return bool(stats["queued"] + stats["running"] == CANARIES - 1)

        self.watched.until("end of all others' jobs", only_canaries)

    # --- canaries --------------------------------------------------------------------------------

    def _begin_canaries(self) -> list[str]:
        found = []
        for number in range(CANARIES):
            self.rids += 1
            rid = f"canary-{self.rids}"
            self.client.send(
                b"SUBMIT", rid=rid, job={"prompt": "a canary", "model": "canary", "priority": 10}, key=f"{rid}-{number}"
            )
            found.append(self.client.until(b"ACCEPTED")[0]["job_id"])
        self._draw(found[0])
        token = self.honest.until(b"DISPATCH")[0]["token"]
        self.honest.started(token)
        self.honest.heard.insert(0, (b"DISPATCH", {"token": token}, []))
        self.watched.until("start", lambda: self._view(found[1])["job"]["state"] == "running")
        return found

    def _draw(self, job_id: str) -> None:
        token = self.honest.until(b"DISPATCH")[0]["token"]
        assert token["job_id"] == job_id, self.watched.fail("the canaries are not drawn in their order")
        self.honest.started(token)
        self.honest.done(token, job_id.encode(), b"picture")
        assert self.honest.until(b"RESULT_ACK")[0]["token"] == token
        self.honest.grant()
        header, payload = self.client.until(b"RESULT")
        assert (header["job_id"], b"".join(payload)) == (job_id, job_id.encode() + b"picture")

    def _finish_canaries(self, canaries: list[str]) -> None:
        for job_id in canaries[1:]:
            self._draw(job_id)
            self.done["canaries"] += 1
        self.client.heard.clear()

    def _view(self, job_id: str) -> dict[str, Any]:
        view = self._ask(b"JOB", b"JOB", job_id=job_id)[1]
        del view["rid"]
        return view

    def _canary_views(self, canaries: list[str]) -> list[dict[str, Any]]:
        views = [self._view(job_id) for job_id in canaries]
        for view in views:
            view["job"].pop("eta_s")  # it comes nearer by itself
        return views


def _is_refused(side: str, frames: Frames) -> bool:
    """Is it answered ERROR? What the transport drops is not, nor is an ERROR."""
    if not frames or frames[1:2] == [b"ERROR"] or max(map(len, frames)) > FRAME_BYTES_MAX:
        return False
    try:
        (FROM_CLIENT if side == "client" else FROM_WORKER).decode(frames)
    except ProtocolError:
        return True
    return False


def journal_rows(state_dir: Path) -> list[Any]:
    """Every row of the journal, read from a copy: its own connection is the only one that it may have."""
    copy = state_dir.parent / "copy.db"
    for suffix in ("-wal", "-shm", ""):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)
        source = state_dir / f"journal.db{suffix}"
        if suffix != "-shm" and source.exists():
            Path(f"{copy}{suffix}").write_bytes(source.read_bytes())
    connection = apsw.Connection(str(copy))
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [(table, list(connection.execute(f'SELECT * FROM "{table}"'))) for table in sorted(tables)]
    finally:
        connection.close()
