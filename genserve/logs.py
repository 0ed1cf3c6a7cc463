"""`genserve logs JOB`: one job's whole life, from the journal or files, and from the router's history of it.

Reads, merges by time and prints; says in the end what it could not see, and how that can be seen.
"""

import socket
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console

from common.clock import wall_s
from common.errors import GenServeError
from common.messages import JobReply, StatusReply
from genserve import log_page
from genserve.client import Client, RouterAddress
from genserve.journald import Journal, Window, elsewhere
from genserve.log_lines import (
    GPU_PROCESSES,
    LogLine,
    Stay,
    beside,
    folded,
    in_order,
    is_about,
    may_matter,
    moment_line,
    names_of,
    parse,
    stays,
    together,
)
from genserve.paper import paper

ANSWER_TIMEOUT_S = 2.0  # of the router: its history is welcome, the lines are there without it
BESIDE_LINES_MAX = 50_000  # that may stand beside: the newest
ENDED = ("done", "failed", "cancelled")
LINE_CHARS_MAX = 1024 * 1024  # a longer one is none of ours


@dataclass
class Found:
    """What was read."""

    about: list[LogLine] = field(default_factory=list)
    around: deque[LogLine] = field(default_factory=lambda: deque(maxlen=BESIDE_LINES_MAX))
    hosts: dict[str, str] = field(default_factory=dict)  # by worker_id, as lines tell
    places: dict[str, tuple[str, str]] = field(default_factory=dict)  # worker_id -> (origin of its lines, device)
    read: int = 0
    foreign: int = 0  # that were no lines of ours
    notes: list[str] = field(default_factory=list)

    def take(self, text: str, wanted: str, source: str = "") -> None:
        """One line of a file, or ('') of the journal."""
        if not text.strip():
            return
        self.read += 1
        line = parse(text, source=source)
        if line is None:
            self.foreign += 1
            return
        if (worker_id := line.text("worker_id")) and line.process in GPU_PROCESSES:
            self.places[worker_id] = (line.origin, line.text("device"))
            if line.host:
                self.hosts[worker_id] = line.host
        if any(job_id.startswith(wanted) for job_id in line.job_ids()):
            self.about.append(line)
        elif may_matter(line):
            self.around.append(line)


def logs(
    router: RouterAddress,
    wanted: str,
    *,
    files: Sequence[Path],
    journal: Journal | None,
    as_json: bool,
    follow: bool,
) -> int:
    """Print a job's life; the exit status: 1 where there is no trace of it. `journal`: None: only the files."""
    found = Found()
    for path in files:
        _read_file(path, found, wanted)
    if journal is not None:
        _read_journal(journal, found, wanted)
    job_id = _whole_id(wanted, found)
    reply, status = _ask_router(router, job_id, found)
    if journal is not None and (reply is not None or found.about):
        _read_around(journal, found, wanted, reply)
    life = Life(job_id, found, reply, status)
    if not life.lines:
        _tell_nothing(wanted, found)
        return 1
    life.tell_unseen(journal, files)
    if as_json:
        for line, about in life.lines:
            sys.stdout.write(log_page.as_json(line, about=about) + "\n")
        for note in found.notes if not follow else ():
            sys.stderr.write(f"genserve: {note}\n")
    else:
        life.print(paper(highlight=False))
    if follow:
        from genserve.log_follow import follow as go_on  # noqa: PLC0415  # only then

        return go_on(router, life, files=files, journal=journal, as_json=as_json)
    return 0


class Life:
    """Everything that is known of one job, in order."""

    def __init__(self, job_id: str, found: Found, reply: JobReply | None, status: StatusReply | None) -> None:
        self.job_id = job_id
        self.found = found
        self.reply = reply
        self.about = [line for line in found.about if is_about(line, job_id)]
        history = [moment_line(moment, job_id) for moment in (reply.history if reply is not None else ())]
        self.about, moments = together(history, self.about)
        self.stays: list[Stay] = []
        self.refresh_stays(self.about)
        told = {worker.worker_id: worker.host for worker in (status.workers if status is not None else ())}
        self.hosts = {**told, **found.hosts}
        around = [line for line in found.around if beside(line, self.stays, found.places)]
        own = {id(line) for line in (*self.about, *moments)}
        self.lines = [(line, id(line) in own) for line in in_order([*self.about, *moments, *around])]

    def refresh_stays(self, about: Sequence[LogLine]) -> None:
        """Where it has been until now."""
        history = self.reply.history if self.reply is not None else ()
        self.stays = stays(history, about, now=max([wall_s(), *(line.at for line in about)]))

    @property
    def ended(self) -> bool:
        """By the router's word, or by its line."""
        if self.reply is not None:
            return self.reply.job.state in ENDED
        return any(
            line.process == "router" and line.event in ("job.finished", "job.failed", "job.cancelled")
            for line in self.about
        )

    def print(self, console: Console) -> None:
        """For a person."""
        first, last = self.lines[0][0].at, self.lines[-1][0].at
        console.print(log_page.title(self.job_id, first, last, len(self.lines)))
        console.print(log_page.rows(folded(self.lines)))
        console.print(log_page.unseen(self.found.notes))

    def tell_unseen(self, journal: Journal | None, files: Sequence[Path]) -> None:
        """What is missing, and how it is got."""
        notes, here = self.found.notes, socket.gethostname()
        seen = {line.text("worker_id") for line in self.about if line.process in GPU_PROCESSES}
        for stay in self._unheard(seen):
            host = self.hosts.get(stay.worker_id, "") or stay.worker_id.rpartition("/")[0]
            if not host:
                notes.append(f"it was with {stay.worker_id}, whose host is not known: no line of it was found")
            elif host == here:
                where = "the journal" if journal is not None else "what was read"
                notes.append(f"it was with {stay.worker_id} of this host, but {where} has no line of it about this job")
            else:
                window = Window(self.lines[0][0].at, self.lines[-1][0].at)
                name = f"{host}.json"
                also = " ".join(["--journal"] * (journal is not None) + [f"--file {path}" for path in files])
                notes.append(
                    f"it was with {stay.worker_id}; no line of it was found here. That host's journal:\n"
                    f"    {elsewhere(host, window, name)}\n"
                    f"    genserve logs {self.job_id} {also} --file {name}".replace("  --file", " --file")
                )
        if not any(line.process == "router" for line in self.about):
            notes.append("no line of the router names it: the router's journal or log file was not read")

    def _unheard(self, seen: set[str]) -> Iterator[Stay]:
        told: set[str] = set()
        for stay in self.stays:
            if stay.worker_id not in seen | told:
                told.add(stay.worker_id)
                yield stay


# --- reading -------------------------------------------------------------------------------------


def _read_file(path: Path, found: Found, wanted: str) -> None:
    before = found.read - found.foreign
    try:
        if str(path) == "-":
            _take_all(sys.stdin, found, wanted, "stdin")
        else:
            with path.open(encoding="utf-8", errors="replace") as file:
                _take_all(file, found, wanted, str(path))
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint="--file") from None
    if found.read - found.foreign == before:
        found.notes.append(f"{path} holds no JSON log line of GenServe: start its processes with --log-format json")


def _take_all(lines: Iterable[str], found: Found, wanted: str, source: str = "") -> None:
    for text in lines:
        if len(text) <= LINE_CHARS_MAX:
            found.take(text, wanted, source)


def _read_journal(journal: Journal, found: Found, wanted: str) -> None:
    """The entries that name the job."""
    _take_all(journal.read(Window(word=wanted[:8]), found.notes), found, wanted)


def _read_around(journal: Journal, found: Found, wanted: str, reply: JobReply | None) -> None:
    """Everything of its time: what happened beside it has not its name."""
    times = [line.at for line in found.about] + [moment.at for moment in (reply.history if reply else ())]
    again = Found()
    _take_all(journal.read(Window(min(times), max(times)), []), again, wanted)
    of_files = [line for line in found.around if line.source]  # and not what the journal has said already
    found.around.clear()
    found.around.extend([*of_files, *again.around])
    found.hosts.update(again.hosts)
    found.places.update(again.places)


def _whole_id(wanted: str, found: Found) -> str:
    """The job's id. Raises typer.BadParameter where several begin so."""
    names = names_of(found.about, wanted)
    if len(names) > 1:
        raise typer.BadParameter(f"{wanted} begins the ids of {len(names)} jobs: {', '.join(names[:8])}")
    return names[0] if names else wanted


def _ask_router(router: RouterAddress, job_id: str, found: Found) -> tuple[JobReply | None, StatusReply | None]:
    if len(job_id) < 32:
        return None, None
    try:
        with Client(router, answer_timeout_s=ANSWER_TIMEOUT_S) as client:
            return client.job(job_id), client.status()
    except GenServeError as error:
        why = error.message if error.code == "not_found" else f"no router answers at {router.endpoint}"
        found.notes.append(f"the router's history of it is missing: {why}")
        return None, None


def _tell_nothing(wanted: str, found: Found) -> None:
    console = Console(stderr=True, highlight=False)
    console.print(f"[bold red]✘[/] no trace of a job {wanted}", soft_wrap=True)
    if len(wanted) < 32:
        found.notes.append("the router is asked for its history only by the whole id, all 32 digits")
    if found.read:
        found.notes.append(f"{found.read} lines were read")
    console.print(log_page.unseen(found.notes))
