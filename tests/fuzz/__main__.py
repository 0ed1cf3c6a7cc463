"""`python -m tests.fuzz`: mutated frames at the router's and the daemon's doors, by seed.

python -m tests.fuzz --frames 1000000 --seed 1        all parts, the frames shared among them
python -m tests.fuzz --part router --frames 50000     one of them: router, daemon, daemon+wire, broker, session
python -m tests.fuzz --part broker --episode 1:17     play one episode again, byte for byte
python -m tests.fuzz --replay fuzz-frames.jsonl       what a real process was sent last, one by one
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.campaign import PARTS, replay, run_part
from tests.fuzz.failure import FuzzError
from tests.fuzz.pure_daemon import EPISODE_FRAMES, DaemonEpisode
from tests.fuzz.pure_router import RouterEpisode

SHARES = {"router": 0.5, "daemon+wire": 0.2, "broker": 0.2, "session": 0.1}


def main() -> int:
    """0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Mutated frames against GenServe.")
    parser.add_argument("--frames", type=int, default=100_000, help="mutated frames in all")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--part", choices=sorted(PARTS), help="only this one")
    parser.add_argument("--episode", help="of --part broker or session: play it again")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="send again what a failed run has kept")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="genserve-fuzz-"))
    try:
        if asked.replay:
            print(f"{replay(asked.replay, folder)} frames sent again; nothing gave way")
        elif asked.episode:
            kind = DaemonEpisode if asked.part == "session" else RouterEpisode
            kind(asked.episode).run(EPISODE_FRAMES)
            print(f"episode {asked.episode}: nothing gave way")
        else:
            _all_parts(asked.frames, asked.seed, {asked.part: 1.0} if asked.part else SHARES, folder)
    except FuzzError as error:
        print(f"{error}\n  log and frames: {folder}", file=sys.stderr)
        return 1
    return 0


def _all_parts(frames: int, seed: str, shares: dict[str, float], folder: Path) -> None:
    total = 0
    for part, share in shares.items():
        began, its_folder = time.monotonic(), folder / part
        its_folder.mkdir()
        done = run_part(part, seed, int(frames * share), its_folder)
        seconds = time.monotonic() - began
        total += done["mutated"]
        told = ", ".join(f"{count} {name}" for name, count in done.most_common() if "." not in name)
        print(f"{part}: {seconds:.0f} s, {done['mutated'] / seconds:.0f} frames/s: {told}", flush=True)
    print(f"{total} mutated frames, seed {seed}: nothing gave way")


if __name__ == "__main__":
    sys.exit(main())
