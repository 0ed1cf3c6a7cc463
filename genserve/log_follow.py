"""`genserve logs JOB --follow`: what is written from here on, until the job has ended.

New lines of the journal and of the files, and what the router's history says that no line tells.
"""

import os
import selectors
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from common.clock import monotonic_s, wall_s
from common.errors import GenServeError
from genserve import log_page
from genserve.client import Client, RouterAddress
from genserve.journald import Journal, Window
from genserve.log_lines import LogLine, beside, in_order, is_about, moment_line, together
from genserve.logs import Found, Life
from genserve.paper import paper

LOOK_S = 0.25
ASK_ROUTER_S = 0.5
ANSWER_TIMEOUT_S = 1.0
LAST_WORDS_S = 1.5  # after the job's end: the lines of others may come later
READ_BYTES = 65536


class Tail:
    """Whole lines that are added to a file, or ('') that journalctl writes."""

    def __init__(self, file: IO[str], source: str = "") -> None:
        self.source = source
        self._descriptor = file.fileno()
        os.set_blocking(self._descriptor, False)
        self._rest = b""

    def lines(self) -> Iterator[str]:
        """Those that are there by now."""
        while True:
            try:
                data = os.read(self._descriptor, READ_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                yield line.decode("utf-8", "replace")


def follow(router: RouterAddress, life: Life, *, files: Sequence[Path], journal: Journal | None, as_json: bool) -> int:
    """Print what is new until the job has ended, or Ctrl-C; the exit status."""
    with ExitStack() as stack:
        tails = []
        for path in files:
            if str(path) == "-":
                continue
            file = stack.enter_context(path.open(encoding="utf-8"))
            file.seek(0, os.SEEK_END)
            tails.append(Tail(file, str(path)))
        if journal is not None:
            process = stack.enter_context(journal.start(Window(since=wall_s()), follow=True))
            stack.callback(process.terminate)
            assert process.stdout is not None
            tails.append(Tail(process.stdout))
        client = stack.enter_context(Client(router, answer_timeout_s=ANSWER_TIMEOUT_S))
        try:
            return _Following(life, client, tails, as_json=as_json).run()
        except KeyboardInterrupt:
            return 0


class _Following:
    def __init__(self, life: Life, client: Client, tails: Sequence[Tail], *, as_json: bool) -> None:
        self._life = life
        self._client = client
        self._tails = tails
        self._as_json = as_json
        self._console = paper(highlight=False)
        self._last_at = life.lines[-1][0].at
        self._shown = {self._name(line) for line, _ in life.lines}
        self._moments = len(life.reply.history) if life.reply is not None else 0
        self._about = list(life.about)

    @staticmethod
    def _name(line: LogLine) -> tuple[object, ...]:
        return (line.process, line.event, line.host, str(line.fields))

    def run(self) -> int:
        ask_at, until = 0.0, None if not self._life.ended else monotonic_s()
        pause = selectors.DefaultSelector()
        while True:
            new = list(self._new_lines())
            if (now := monotonic_s()) >= ask_at:
                ask_at = now + ASK_ROUTER_S
                new += self._new_moments()
                if until is None and self._life.ended:
                    until = now + LAST_WORDS_S
            self._print(in_order(new))
            if until is not None and now >= until:
                return 0
            pause.select(LOOK_S)

    def _new_lines(self) -> Iterator[LogLine]:
        found = Found()
        for tail in self._tails:
            for text in tail.lines():
                found.take(text, self._life.job_id, tail.source)
        self._life.found.places.update(found.places)
        for line in (*found.about, *found.around):
            if self._name(line) in self._shown:
                continue
            if is_about(line, self._life.job_id):
                self._about.append(line)
                yield line
            elif beside(line, self._life.stays, self._life.found.places):
                yield line

    def _new_moments(self) -> list[LogLine]:
        try:
            reply = self._client.job(self._life.job_id)
        except GenServeError:  # away for a moment, or it never was there
            return []
        self._life.reply = reply
        self._life.refresh_stays(self._about)
        fresh = [moment_line(moment, self._life.job_id) for moment in reply.history[self._moments :]]
        ripe = [line for line in fresh if line.at <= wall_s() - ASK_ROUTER_S]  # what others say of it has come by then
        self._moments += len(ripe)
        return together(ripe, self._about)[1]

    def _print(self, lines: Sequence[LogLine]) -> None:
        for line in lines:
            self._shown.add(self._name(line))
            about = is_about(line, self._life.job_id)
            if self._as_json:
                sys.stdout.write(log_page.as_json(line, about=about) + "\n")
                sys.stdout.flush()
            else:
                self._console.print(log_page.rows([(line, about)], before=self._last_at))
            self._last_at = line.at
