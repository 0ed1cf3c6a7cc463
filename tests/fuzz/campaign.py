"""The four parts of the fuzzing, each run until it has sent its frames or its time is over.

`router` and `daemon` fire at real processes through real sockets, `broker` and `session` at the same code in this one.
"""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import live_daemon, live_router, pure_daemon, pure_router
from tests.fuzz.live import kept_frames
from tests.gpu_daemon.process import Daemon
from tests.router.process import router_process

Until = Callable[[], bool]  # is the time over?
RAW_TO_DAEMON = 2  # connections that its router answers with no ZMTP; each may cost it ten seconds


def run_part(part: str, seed: str, frames: int, folder: Path, *, within_s: float = float("inf")) -> Counter[str]:
    """What was done, by name; 'mutated' are the frames that count. Raises FuzzError."""
    end = time.monotonic() + within_s
    found = PARTS[part](seed, frames, folder, lambda: time.monotonic() > end)
    assert found["mutated"] > 0
    return found


def _broker(seed: str, frames: int, _: Path, over: Until) -> Counter[str]:
    done: Counter[str] = Counter()
    while done["mutated"] < frames and not over():
        episode = pure_router.RouterEpisode(f"{seed}:{done['episodes']}")
        episode.run(min(pure_router.EPISODE_FRAMES, frames - done["mutated"]))
        done += episode.done
        done["episodes"] += 1
    return done


def _session(seed: str, frames: int, _: Path, over: Until) -> Counter[str]:
    done: Counter[str] = Counter()
    while done["mutated"] < frames and not over():
        episode = pure_daemon.DaemonEpisode(f"{seed}:{done['episodes']}")
        episode.run(min(pure_daemon.EPISODE_FRAMES, frames - done["mutated"]))
        done += episode.done
        done["episodes"] += 1
    return done


def _router(seed: str, frames: int, folder: Path, over: Until) -> Counter[str]:
    with router_process(folder, **live_router.SETTINGS) as router:
        fuzz = live_router.RouterFuzz(router, seed, frames)
        fuzz.run(over)
        assert router.stop() == 0
        fuzz.watched.check_log()
    return fuzz.done + _memory(fuzz.watched.warm_mb, fuzz.watched.most_mb)


def _daemon(seed: str, frames: int, folder: Path, over: Until, *, raw: int = 0) -> Counter[str]:
    line = live_daemon.Line()
    daemon = Daemon(line, folder, noop_step_s=live_daemon.NOOP_STEP_S, drain_s=1)
    try:
        fuzz = live_daemon.DaemonFuzz(daemon, line, seed, frames)
        fuzz.run(over)
        if raw:
            fuzz.below_zeromq(raw)
        fuzz.leave()
        fuzz.watched.check_log()
        return fuzz.done + _memory(fuzz.watched.warm_mb, fuzz.watched.most_mb)
    finally:
        daemon.close()
        line.close()


def _daemon_and_wire(seed: str, frames: int, folder: Path, over: Until) -> Counter[str]:
    return _daemon(seed, frames, folder, over, raw=RAW_TO_DAEMON)


def _memory(warm_mb: float, most_mb: float) -> Counter[str]:
    return Counter({"MiB warm": round(warm_mb), "MiB at most": round(most_mb)})


PARTS: dict[str, Callable[[str, int, Path, Until], Counter[str]]] = {
    "broker": _broker,
    "session": _session,
    "router": _router,
    "daemon": _daemon,
    "daemon+wire": _daemon_and_wire,
}


def replay(path: Path, folder: Path) -> int:
    """Send what a failed run has kept to a new process, one by one; how many. Raises FuzzError at the guilty one."""
    kept = kept_frames(path)
    if {side for side, _ in kept} == {"router"}:
        line = live_daemon.Line()
        daemon = Daemon(line, folder, noop_step_s=live_daemon.NOOP_STEP_S)
        try:
            live_daemon.DaemonFuzz(daemon, line, "replay", 0).replay(frames for _, frames in kept)
        finally:
            daemon.close()
            line.close()
    else:
        with router_process(folder, **live_router.SETTINGS) as router:
            live_router.RouterFuzz(router, "replay", 0).replay(kept)
    return len(kept)
