"""`genserve status --watch`: the status again and again, on a screen of its own, else a block each time.

Asks the router and draws; what is drawn is made by genserve/status.py and genserve/rates.py. A router that is away is
waited for: its last word stays on the screen, with how long ago that was.
"""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.styled import Styled
from rich.text import Text

from common.clock import monotonic_s, wall_s
from common.errors import GenServeError
from common.messages import StatusReply
from genserve.client import Client, RouterAddress
from genserve.paper import paper
from genserve.rates import Meter, Rates
from genserve.status import number, tables

ANSWER_S = 1.0  # that a router has before it counts as away
REDRAWS_PER_S = 4  # so that clocks run and the screen follows its window while nothing is heard
WORKERS_SHOWN_MIN = 1
BARS = "▁▂▃▄▅▆▇█"


def watch(router: RouterAddress, *, every_s: float) -> int:
    """Until Ctrl-C; the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a terminal must be left as it was
    console = paper()
    view = View(router.endpoint)
    try:
        with Client(router, answer_timeout_s=ANSWER_S) as client:
            if not console.is_terminal:
                _blocks(client, view, console, every_s)
            with Live(
                console=console,
                screen=True,
                get_renderable=lambda: view.screen(console),
                refresh_per_second=REDRAWS_PER_S,
            ) as live:
                _keep_asking(client, view, live.refresh, every_s)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:  # who reads the blocks has had enough of them
        return 0
    return 0


class View:
    """What was last heard, and how to show it. The screen is drawn by a thread of its own."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._meter = Meter()
        self._lock = threading.Lock()
        self._reply: StatusReply | None = None
        self._rates: Rates | None = None
        self._heard_wall = 0.0
        self._silent_since_now: float | None = monotonic_s()

    def heard(self, reply: StatusReply) -> None:
        """The router answered."""
        with self._lock:
            self._reply, self._heard_wall, self._silent_since_now = reply, wall_s(), None
            self._rates = self._meter.look(reply, monotonic_s())

    def silent(self, asked_now: float) -> None:
        """It did not, having been asked at `asked_now`."""
        with self._lock:
            if self._silent_since_now is None:
                self._silent_since_now = asked_now

    def screen(self, console: Console) -> RenderableType:
        """All of it, cut to the height of the terminal: of many GPUs the first ones."""
        with self._lock:
            reply, rates, silent_since = self._reply, self._rates, self._silent_since_now
        head: list[RenderableType] = [self._head(), _rates(rates)]
        if silent_since is not None:
            head = [self._head(), self._away(silent_since)]
        if reply is None:
            return Group(*head)
        now = wall_s() if silent_since is None else self._heard_wall
        width, height = console.size
        style = "" if silent_since is None else "dim"  # what was true then

        def page(workers_max: int | None = None) -> RenderableType:
            return Group(*head, Styled(tables(reply, now=now, width=width, workers_max=workers_max), style))

        excess = len(console.render_lines(page(), pad=False)) - height
        return page() if excess <= 0 else page(max(WORKERS_SHOWN_MIN, len(reply.workers) - excess - 1))

    def block(self) -> RenderableType:
        """The same for paper: one look, or that there is none."""
        clock = Text(datetime.fromtimestamp(wall_s()).astimezone().strftime("%Y-%m-%d %H:%M:%S"), style="bold")
        if self._silent_since_now is not None:
            return Group(clock, self._away(self._silent_since_now))
        assert self._reply is not None
        return Group(clock, _rates(self._rates), tables(self._reply, now=wall_s(), width=paper().width))

    def _head(self) -> Text:
        clock = datetime.fromtimestamp(wall_s()).astimezone().strftime("%H:%M:%S")
        return Text.assemble((" GenServe", "bold"), f" at {self._endpoint}", (f" · {clock} · Ctrl-C ends", "dim"))

    def _away(self, since_now: float) -> Text:
        away_s = monotonic_s() - since_now
        return Text(f" router not answering since {away_s:.0f} s", style="bold red")


def _rates(rates: Rates | None) -> Text:
    if rates is None:
        return Text(" measuring …", style="dim")
    words = [f"{number(rates.pictures_per_min)} pictures/min", f"{number(rates.steps_per_s)} steps/s"]
    text = Text.assemble((" " + " · ".join(words), "bold cyan"))
    for count, name in ((rates.refused, "refused"), (rates.failed, "failed"), (rates.retried, "retried")):
        if count:
            text.append(f" · {count} {name}", style="red" if name == "failed" else "yellow")
    text.append(f" · in the last {rates.over_s:.0f} s", style="dim")
    curve = _curve(rates.steps_lately)
    return text.append(f"  {curve}", style="cyan") if curve else text


def _curve(values: Sequence[float]) -> str:
    """A line of little bars, the highest of full height."""
    most = max(values, default=0.0)
    return "".join(BARS[round(value / most * (len(BARS) - 1))] for value in values) if most else ""


def _blocks(client: Client, view: View, console: Console, every_s: float) -> None:
    def tell() -> None:
        console.print(view.block())
        console.file.flush()

    _keep_asking(client, view, tell, every_s)


def _keep_asking(client: Client, view: View, tell: Callable[[], None], every_s: float) -> None:
    due_now = monotonic_s()
    while True:
        asked_now = monotonic_s()
        try:
            view.heard(client.status())
        except GenServeError as error:
            if error.code != "unavailable":
                raise
            view.silent(asked_now)
        tell()
        due_now = max(due_now + every_s, monotonic_s())
        time.sleep(max(0.0, due_now - monotonic_s()))
