"""Those who speak to a router: each says what it likes, mostly wrong, and hears enough to be believed in between.

Pure. A daemon that hears WELCOME says next that it is ready and grants credit; one that hears RESYNC registers.
"""

import random
from collections import deque

from common.messages import Accepted, Dispatch, Message, Resync, Welcome
from tests.fuzz.grammar import Known, Said, client_message, register, worker_message
from tests.fuzz.mutate import Frames, frames_of, mutated

VALID_SHARE = 0.3
HONEST_SHARE = 0.4  # of turns, where a daemon has something to say to get work


class Voice:
    """One connection's speaker. `side`: 'client' or 'worker'."""

    def __init__(self, side: str, known: Known) -> None:
        self.side = side
        self.known = known
        self.honest: deque[Said] = deque()

    def says(self, chance: random.Random) -> tuple[Frames, bool]:
        """The frames of its next message, and whether they were mutated."""
        if self.honest and chance.random() < HONEST_SHARE:
            return frames_of(self.honest.popleft()), False
        said = (worker_message if self.side == "worker" else client_message)(chance, self.known)
        if chance.random() < VALID_SHARE:
            return frames_of(said), False
        return mutated(chance, said), True

    def hears(self, message: Message, chance: random.Random, others: list["Voice"]) -> None:
        """What the router told it; `others` pick up jobs and tokens."""
        known = self.known
        match message:
            case Accepted():
                for other in others:
                    other.known.jobs.append(message.job_id)
            case Welcome():
                known.epochs.append(known.epoch)
                known.epoch, known.granted = message.epoch, 2
                self.honest.append(Said(b"HEARTBEAT", {"epoch": known.epoch, "state": "ready"}))
                self.honest.append(Said(b"CREDIT", {"epoch": known.epoch, "granted_total": 2}))
            case Resync():
                if not self.honest:
                    self.honest.append(register(chance, known))
            case Dispatch():
                token = {"job_id": message.token.job_id, "dispatch": message.token.dispatch}
                known.own.append(token)
                for other in others:
                    other.known.tokens.append(token)
