"""`genserve jobs`, `genserve dead-letters`, `genserve requeue`: single jobs for people, or as they came for programs.

Pure but for the four commands: what is printed is made from a JobView, its history and the time. An id is never cut.
"""

import re
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import cast, get_args

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.clock import wall_s
from common.errors import GenServeError
from common.messages import JobMoment, JobReply, JobView, ShownState
from common.roles import LOCAL_NAME
from genserve.client import Client, RouterAddress
from genserve.paper import paper
from genserve.status import seconds

STATE_STYLES = {"queued": "cyan", "running": "cyan", "done": "green", "failed": "bold red", "cancelled": "yellow"}
EVENT_STYLES = {**STATE_STYLES, "requeued": "yellow", "requeued_as": "yellow"}
BAR = 20  # characters
CLIENT_CHARS = 16
ID_DIGITS, ID_DIGITS_MIN = 32, 8  # of a job's id, and of what of it is enough
JOBS_LOOKED_AT_MAX = 10_000  # for the one that is meant


def show(router: RouterAddress, job_id: str, *, as_json: bool) -> int:
    """Print how a job stands and what happened to it; the exit status. Raises GenServeError."""
    check_id(job_id)
    with Client(router) as client:
        reply = client.job(whole_id(client, job_id))
    if as_json:
        _write_json({"job": reply.job, "history": reply.history})
    else:
        paper().print(job_page(reply, now=wall_s()))
    return 0


def listed(router: RouterAddress, states: Sequence[str], *, limit: int, as_json: bool) -> int:
    """Print the newest jobs; the exit status. Raises GenServeError unavailable."""
    with Client(router) as client:
        found = client.jobs([check_state(each) for each in states], limit)
    if as_json:
        _write_json(found)
    else:
        paper().print(jobs_page(found, limit=limit, now=wall_s()))
    return 0


def cancel(router: RouterAddress, job_id: str) -> int:
    """End a job; the exit status. Raises GenServeError, also where it had ended before."""
    check_id(job_id)
    with Client(router) as client:
        found = whole_id(client, job_id)
        client.cancel(found)
    Console().print(f"[bold green]✔[/] the job {found} is cancelled", highlight=False, soft_wrap=True)
    return 0


def dead_letters(router: RouterAddress, *, as_json: bool) -> int:
    """Print the poison jobs; the exit status. Raises GenServeError unavailable."""
    with Client(router) as client:
        letters = client.dead_letters()
    if as_json:
        _write_json(letters)
    else:
        paper().print(letters_page(letters, now=wall_s()))
    return 0


def requeue(router: RouterAddress, job_id: str) -> int:
    """Submit a poison job anew and print the new id, alone on its line; the exit status. Raises GenServeError."""
    check_id(job_id)
    with Client(router) as client:
        found = whole_id(client, job_id)
        accepted = client.requeue(found)
    Console(stderr=True).print(f"[bold green]✔[/] the job {found} is drawn anew as", highlight=False, soft_wrap=True)
    sys.stdout.write(f"{accepted.job_id}\n")
    return 0


def check_state(text: str) -> ShownState:
    """A state of jobs. Raises typer.BadParameter for anything else."""
    for state in get_args(ShownState):
        if text == state:
            return cast(ShownState, state)
    raise typer.BadParameter(f"{text!r} is no state of a job: {', '.join(get_args(ShownState))}")


def check_id(text: str) -> str:
    """A job's id, or how one begins. Raises typer.BadParameter for anything else."""
    if not re.fullmatch(rf"[0-9a-f]{{{ID_DIGITS_MIN},{ID_DIGITS}}}", text):
        raise typer.BadParameter(
            f"{text!r} is no job id: one has {ID_DIGITS} digits 0-9 a-f, of which the first {ID_DIGITS_MIN}, as logs "
            "show them, are enough"
        )
    return text


def whole_id(client: Client, text: str) -> str:
    """The id that `text` is, or with which it begins among the jobs that one may see.

    Raises typer.BadParameter where it is none or several begin so, GenServeError not_found, unavailable.
    """
    if len(check_id(text)) == ID_DIGITS:
        return text
    known = client.jobs((), JOBS_LOOKED_AT_MAX)
    found = sorted({job.job_id for job in (*known, *client.dead_letters()) if job.job_id.startswith(text)})
    if not found:
        of = f" of the newest {JOBS_LOOKED_AT_MAX:,}" if len(known) >= JOBS_LOOKED_AT_MAX else ""
        told = f"no job{of} that you may see begins with {text}; `genserve jobs list` shows them"
        raise GenServeError("not_found", told)
    if len(found) > 1:
        raise typer.BadParameter(f"{text} begins the ids of {len(found)} jobs: {', '.join(found[:8])}")
    return found[0]


def job_page(reply: JobReply, *, now: float) -> RenderableType:
    """A job and its history, for a terminal of 80 columns or more. `now`: wall seconds."""
    job = reply.job
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(job, now):
        facts.add_row(name, value)
    parts: list[RenderableType] = [Text(""), Text(f" Job {job.job_id}", style="bold"), Padding(facts, (0, 0, 0, 2))]
    if job.error is not None:
        parts += [Text(""), Padding(Text(job.error.message, style="red"), (0, 0, 0, 2))]
        if job.error.next_step:
            parts.append(Padding(Text(f"-> {job.error.next_step}"), (0, 0, 0, 2)))
    parts += [Padding(Text(f"⚠ {note.message}", style="yellow"), (0, 0, 0, 2)) for note in job.notes]
    if reply.history:
        parts += [Text(""), Text(" History", style="bold"), Padding(_history(reply.history), (0, 0, 0, 2))]
    return Group(*parts, Text(""))


def jobs_page(found: Sequence[JobView], *, limit: int, now: float) -> RenderableType:
    """The newest jobs, a line each, for a terminal of 80 columns or more. `now`: wall seconds."""
    if not found:
        return Text(" There is no such job.", style="green")
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for heading in ("job", "state", "step", "size", "client"):
        table.add_column(heading, no_wrap=True)
    table.add_column("accepted", justify="right", no_wrap=True)
    for job in found:
        state = Text(job.state, style=STATE_STYLES.get(job.state, ""))
        where = f"{job.step}/{job.steps}" if job.state == "running" else f"no. {job.position}" if job.position else ""
        size = f"{job.width}x{job.height}"
        table.add_row(job.job_id, state, where, size, job.client[:CLIENT_CHARS], _ago(job.created_at, now))
    more = [Text(f" The {limit} newest; --limit N shows more.", style="dim")] if len(found) == limit else []
    return Group(Text(""), Padding(table, (0, 0, 0, 1)), *more, Text(""))


def letters_page(letters: Sequence[JobView], *, now: float) -> RenderableType:
    """The poison jobs: for each its id, its facts, and why."""
    if not letters:
        return Text(" No job was given up as poison.", style="green")
    rows: list[RenderableType] = []
    for job in letters:
        facts = " · ".join((job.model, *([job.client] if job.client else []), _ago(job.ended_at, now)))
        why = Text(job.error.message if job.error else "", style="red")
        rows += [
            Text(""),
            Text(f" {job.job_id}", style="bold"),
            *(Padding(each, (0, 0, 0, 3)) for each in (facts, why)),
        ]
    hint = Text(" genserve jobs show ID tells more; genserve requeue ID draws one anew", style="dim")
    title = f" {len(letters)} job{'s' if len(letters) > 1 else ''} given up as poison, oldest first"
    return Group(Text(""), Text(title, style="bold"), *rows, Text(""), hint, Text(""))


def _facts(job: JobView, now: float) -> list[tuple[str, RenderableType]]:
    asked = f"{job.width}x{job.height} · {job.steps} steps · seed {job.seed} · guidance {job.guidance_scale:g}"
    facts: list[tuple[str, RenderableType]] = [("state", _state(job)), ("model", job.model), ("picture", asked)]
    if job.picture is not None:
        facts.append(("file", f"{job.picture.bytes:,} bytes of {job.picture.format.upper()}"))
    if job.device:
        tries = f", started {job.attempts} times" if job.attempts > 1 else ""
        facts.append(("GPU", f"{job.worker_id}{tries}"))
    if job.owner not in ("", LOCAL_NAME):
        facts.append(("owner", job.owner))
    facts.append(("priority", f"{job.priority:+d}" if job.priority else "0"))
    if job.client:
        facts.append(("client", job.client))
    facts.append(("accepted", f"{_moment(job.created_at)}, {_ago(job.created_at, now)}"))
    if job.ended_at:
        facts.append(("ended", f"{_moment(job.ended_at)}, after {seconds(job.ended_at - job.created_at)}"))
    else:
        if job.eta_s is not None:
            facts.append(("left", f"about {seconds(job.eta_s)}"))
        left_s = job.deadline_at - now
        facts.append(("deadline", f"{_moment(job.deadline_at)}, in {seconds(max(0.0, left_s))}"))
    return facts


def _state(job: JobView) -> RenderableType:
    state = Text(job.state, style=STATE_STYLES.get(job.state, ""))
    if job.state == "queued" and job.position:
        return Text.assemble(state, f", number {job.position} in line" if job.position > 1 else ", next in line")
    if job.state != "running":
        return state
    row = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(job.steps, 1), completed=job.step, width=BAR, complete_style="cyan")
    row.add_row(state, bar, f"{job.step}/{job.steps}")
    return row


def _history(history: Sequence[JobMoment]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("when", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("what", no_wrap=True)
    table.add_column("detail", overflow="fold")
    for moment in history:
        table.add_row(
            _moment(moment.at)[-len("12:34:56") :],  # the day stands above
            seconds(max(0.0, moment.at - history[0].at)),
            Text(moment.event, style=EVENT_STYLES.get(moment.event, "")),
            Text(moment.detail),
        )
    return table


def _moment(at: float) -> str:
    """A moment as the clock on the wall shows it."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _ago(at: float, now: float) -> str:
    return f"{seconds(max(0.0, now - at))} ago"


def _write_json(value: object) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
