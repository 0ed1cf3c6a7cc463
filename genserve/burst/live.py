"""What a person sees while a burst runs: bars that move on a terminal, else a plain line every few seconds.

Writes to the one console that it is given; knows no door.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from common.clock import monotonic_s
from common.messages import StatusReply, WorkerView
from genserve.burst.door import Trouble
from genserve.burst.record import DONE, FAILED, Gpu, Order, Request
from genserve.status import number, seconds

LOOK_S = 0.5  # between two looks at the GPUs
LINE_S = 5.0  # between two lines where there is no terminal
GPUS_SHOWN_MAX = 8
RATE_OVER_S = 10.0  # what "now" means in pictures a second
BAR = 32  # characters


class Live:
    """The bars. Told of each request; looks at the GPUs itself."""

    def __init__(self, console: Console, gpus: tuple[Gpu, ...], look: Callable[[], Awaitable[StatusReply]]) -> None:
        self._console = console
        self._look = look
        self._shown = gpus[:GPUS_SHOWN_MAX]
        self._more = len(gpus) - len(self._shown)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=BAR, complete_style="cyan", finished_style="green"),
            TextColumn("{task.fields[count]}"),
            TextColumn("[dim]{task.fields[told]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all: TaskID | None = None
        self._gpus: dict[str, TaskID] = {}
        self._name, self._total = "", 0
        self._looker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._bars.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._looker is not None:
            self._looker.cancel()
            await asyncio.gather(self._looker, return_exceptions=True)
        self._bars.stop()

    def stage(self, name: str, total: int) -> None:
        """From now on requests of this stage are counted."""
        self._name, self._total = name, total
        self._began_now = monotonic_s()
        self._open = self._failed = self._ended = 0
        self._done_now: list[float] = []
        self._line_now = self._began_now + LINE_S
        if self._all is None:
            self._all = self._bars.add_task(name, total=total, count=f"0/{total}", told="")
            for gpu in self._shown:
                self._gpus[gpu.worker_id] = self._bars.add_task(f"  {gpu.name}", total=1, count="", told="")
            self._looker = asyncio.create_task(self._keep_looking())
        else:
            self._bars.reset(self._all, description=name, total=total, count=f"0/{total}", told="")

    def sent(self, _: Order) -> None:
        """A request is under way."""
        self._open += 1

    def ended(self, request: Request) -> None:
        """It has ended."""
        now = monotonic_s()
        self._open -= 1
        self._ended += 1
        self._failed += request.outcome == FAILED
        if request.outcome == DONE:
            self._done_now.append(now)
        if self._all is not None:
            count = f"{self._ended}/{self._total}"
            self._bars.update(self._all, completed=self._ended, count=count, told=self._told(now))
        if not self._console.is_terminal and (now >= self._line_now or self._ended == self._total):
            self._line_now = now + LINE_S
            line = f"{self._name}: {self._ended} of {self._total} · {self._told(now)}"
            self._console.print(line, highlight=False, soft_wrap=True)

    def _told(self, now: float) -> str:
        """Rate, what is under way, what failed, and about how long it will take."""
        over_s = max(0.1, min(RATE_OVER_S, now - self._began_now))
        del self._done_now[
            : next((i for i, at in enumerate(self._done_now) if at >= now - over_s), len(self._done_now))
        ]
        per_s = len(self._done_now) / over_s
        words = [f"{number(per_s)} pictures/s", f"{self._open} open"]
        if self._failed:
            words.append(f"{self._failed} failed")
        ended_per_s = self._ended / max(0.1, now - self._began_now)
        if self._ended < self._total and ended_per_s:
            words.append(f"{seconds((self._total - self._ended) / ended_per_s)} left")
        return " · ".join(words)

    async def _keep_looking(self) -> None:
        first: dict[str, int] = {}
        while True:
            with suppress(Trouble):  # the requests tell what is wrong
                status = await self._look()
                for worker in status.workers:
                    task = self._gpus.get(worker.worker_id)
                    if task is not None:
                        drawn = worker.done_total - first.setdefault(worker.worker_id, worker.done_total)
                        self._show(task, worker, drawn)
            await asyncio.sleep(LOOK_S)

    def _show(self, task: TaskID, worker: WorkerView, drawn: int) -> None:
        told = f"{max(0, drawn)} pictures · {'drawing' if worker.busy else worker.state}"
        if self._more and task == list(self._gpus.values())[-1]:
            told += f" · and {self._more} GPUs more"
        step, steps = (worker.step, worker.steps) if worker.busy else (0, 1)
        count = f"{step}/{steps}" if worker.busy else ""
        self._bars.update(task, total=max(1, steps), completed=step, count=count, told=told)
