"""Mutated frames, as many as fit into a minute at most; `python -m tests.fuzz --frames 1000000` is the long run."""

import json
import random
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from common import codec
from common.errors import ProtocolError
from common.messages import CLIENT_TO_ROUTER, ROUTER_TO_WORKER, WORKER_TO_ROUTER
from router.broker import Broker
from tests.fuzz.campaign import replay, run_part
from tests.fuzz.failure import FuzzError
from tests.fuzz.grammar import Known, client_message, router_message, worker_message
from tests.fuzz.mutate import frames_of
from tests.fuzz.pure_router import RouterEpisode

WITHIN_S = 60.0  # for all parts together
FRAMES = {"router": 24_000, "daemon": 12_000, "broker": 12_000, "session": 6_000}
FRAMES_MIN = 20_000
SEED = "make test"


def test_no_frame_ends_a_process_or_changes_anything_when_refused(tmp_path: Path) -> None:
    total = 0
    for part, frames in FRAMES.items():
        folder = tmp_path / part
        folder.mkdir()
        done = run_part(part, SEED, frames, folder, within_s=WITHIN_S * frames / sum(FRAMES.values()))
        total += done["mutated"]
        if part in ("router", "daemon"):
            assert done["canaries"] >= done["rounds"] > 0, done
            assert done["refused"] > done["mutated"] / 3, done
        elif part == "broker":
            deep = (
                "job.finished",
                "job.requeued",
                "job.failed",
                "worker.registered",
                "worker.refused",
                "compared",
                "inputs kept",
            )
            assert all(done[name] > 0 for name in deep), done
    assert total >= FRAMES_MIN


def test_what_gives_way_is_told_with_its_frame_and_plays_again(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse = Broker._unreadable

    def planted(self: Broker, event: Any) -> None:
        refuse(self, event)
        self.state.totals.retried += 1

    monkeypatch.setattr(Broker, "_unreadable", planted)
    with pytest.raises(FuzzError, match="a frame that was refused changed") as first:
        run_part("broker", "planted", 20_000, Path())
    again = re.search(r"--part broker --episode (\S+)", str(first.value))
    assert again is not None
    with pytest.raises(FuzzError) as second:
        RouterEpisode(again[1]).run(2000)
    assert str(second.value) == str(first.value)
    assert "frames of a" in str(first.value)


def test_whatever_else_a_codec_raises_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(*_: object) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "planted")

    monkeypatch.setattr(codec, "_refuse_repeated_keys", planted)
    with pytest.raises(FuzzError, match="UnicodeDecodeError"):
        run_part("broker", "planted", 20_000, Path())


def test_the_grammar_speaks_every_message_and_what_it_says_is_mostly_understood() -> None:
    chance = random.Random(1)
    for speak, direction, names in (
        (client_message, codec.FROM_CLIENT, {*CLIENT_TO_ROUTER}),
        (worker_message, codec.FROM_WORKER, {*WORKER_TO_ROUTER}),
        (router_message, codec.TO_WORKER, {*ROUTER_TO_WORKER} - {b"DRAIN"}),  # which would be obeyed
    ):
        understood = Counter[bytes]()
        for _ in range(3000):
            with suppress(ProtocolError):
                understood[direction.decode(frames_of(speak(chance, Known()))).NAME] += 1
        assert set(understood) == names
        assert understood.total() > 1500


def test_frames_that_were_kept_are_sent_again(tmp_path: Path) -> None:
    kept = tmp_path / "fuzz-frames.jsonl"
    broken = {"client": [b"GS1", b"ERROR", b"\x81\xa1x\xa1\xff"], "router": [b"GS1", b"WELCOME", b"\x80"]}
    for side, frames in broken.items():
        kept.write_text(json.dumps([side, [frame.hex() for frame in frames]]) + "\n", "utf-8")
        folder = tmp_path / side
        folder.mkdir()
        assert replay(kept, folder) == 1
