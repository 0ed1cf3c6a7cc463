"""`genserve generate`: one prompt in, one picture file out, its progress shown on the way.

Talks to the router only through genserve/client. The progress goes to stderr, the outcome to stdout.
"""

import os
import re
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from common.errors import GenServeError
from common.messages import SUFFIXES, JobProgress, JobSpec
from genserve.client import Client, Drawn, News, RouterAddress
from genserve.files import write_atomically

KEY_CHARS_MAX = 128
ENDINGS = {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "webp": (".webp",)}
EXIT_INTERRUPTED = 130  # as a shell reports an end by SIGINT


def generate(
    router: RouterAddress, job: dict[str, Any], output: Path | None, *, files: Sequence[bytes] = (), key: str = ""
) -> int:
    """Draw `job` (fields of JobSpec) into `output`, by default genserve-<job>.png. The exit status."""
    out, err = Console(), Console(stderr=True)
    spec = job_spec(job | {"format": job.get("format") or format_of(output)})
    check_key(key)
    check_output(output, spec.format)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` and `timeout` cancel the job like Ctrl-C
    try:
        with Client(router) as client, ProgressLine(err) as line:
            show = partial(keep_preview, err, output)
            drawn = client.draw(spec, line.show, files=files, key=key, on_preview=show)
    except KeyboardInterrupt:
        err.print("cancelled")
        return EXIT_INTERRUPTED
    path = output_path(output, drawn.job.job_id, drawn.picture.format)
    write_atomically(path, drawn.data)
    report(out, path, drawn)
    return 0


def job_spec(fields: dict[str, Any]) -> JobSpec:
    """The job of those `fields` that are not None. Raises GenServeError invalid_request naming the one at fault."""
    try:
        return msgspec.convert({name: value for name, value in fields.items() if value is not None}, JobSpec)
    except msgspec.ValidationError as error:
        text = str(error)
        found = re.search(r"`\$\.(\w+)`", text)
        name = found[1] if found else None
        what = re.sub(r" - at `.*`$", "", text)
        raise GenServeError("invalid_request", f"{name or 'the job'}: {what}", param=name) from None


def check_key(key: str) -> None:
    """Refuse what the router would not read as a key."""
    if len(key) > KEY_CHARS_MAX:
        raise typer.BadParameter(f"it has {len(key)} characters, and may have {KEY_CHARS_MAX}", param_hint="--key")


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) in pixels of 'WxH'; (0, 0), the model's own, of 'auto'."""
    if text == "auto":
        return 0, 0
    found = re.fullmatch(r"(\d{1,5})[xX×](\d{1,5})", text)
    if not found:
        raise typer.BadParameter(f"{text!r} is no WIDTHxHEIGHT such as 512x512", param_hint="--size")
    return int(found[1]), int(found[2])


def format_of(output: Path | None) -> str:
    """The picture format that a file's name asks for; png where it asks for none."""
    suffix = output.suffix.lower() if output is not None and not output.is_dir() else ""
    return next((name for name, endings in ENDINGS.items() if suffix in endings), "png")


def check_output(output: Path | None, format_: str = "png") -> None:
    """Refuse before drawing what could not be written afterwards, or would bear a wrong name."""
    folder = output_path(output, "").parent
    if output is not None and not output.is_dir() and output.suffix.lower() not in ENDINGS[format_]:
        better = f"{output.stem}.{SUFFIXES[format_]}"
        raise typer.BadParameter(f"it will be a {format_}: name it {better}, or choose a --format", param_hint="-o")
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder {folder}: create it first", param_hint="-o")
    if not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"the folder {folder} cannot be written to", param_hint="-o")


def output_path(output: Path | None, job_id: str, format_: str = "png") -> Path:
    """Where the picture of a job goes; a folder takes it under a name of the job."""
    if output is None or output.is_dir():
        return (output or Path()) / f"genserve-{job_id[:8]}.{SUFFIXES.get(format_, format_)}"
    return output


def keep_preview(err: Console, output: Path | None, progress: JobProgress, data: bytes) -> None:
    """Write a partial picture beside the place of the final one, and say so."""
    assert progress.preview is not None
    final = output_path(output, progress.job_id)
    suffix = SUFFIXES.get(progress.preview.format, progress.preview.format)
    path = final.with_name(f"{final.stem}-preview-{progress.preview_index + 1}.{suffix}")
    write_atomically(path, data)
    where = f"after step {progress.step} of {progress.steps}"
    err.print(f"[dim]{escape(str(path))} {where}[/]", highlight=False, soft_wrap=True)


def report(out: Console, path: Path, drawn: Drawn) -> None:
    """Tell what was drawn, where it lies, and what its reader should know."""
    job, picture = drawn.job, drawn.picture
    seconds = job.ended_at - job.created_at
    out.print(f"[bold green]✔[/] [bold]{escape(str(path))}[/]", highlight=False, soft_wrap=True)
    facts = (
        f"{picture.width}x{picture.height}",
        job.model,
        f"seed {job.seed}",
        f"{job.steps} steps",
        f"{seconds:.1f} s",
        f"on {job.device}",
    )
    out.print("  " + " · ".join(facts), highlight=False)
    for note in job.notes:
        out.print(f"  [yellow]⚠ {escape(note.message)}[/]", highlight=False)


class ProgressLine:
    """The one line that shows how a job stands: a moving bar on a terminal, else a line a change of state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30, complete_style="cyan"),
            TaskProgressColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("[dim]{task.fields[eta]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("connecting", total=1, visible=True, eta="")
        self._last = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, news: News) -> None:
        """The job moved."""
        words = describe(news)
        eta = f"about {news.eta_s:.0f} s left" if news.eta_s is not None and news.eta_s >= 1 else ""
        if self._console.is_terminal:
            self._bar.update(self._task, description=words, completed=news.step, total=max(news.steps, 1), eta=eta)
        elif words != self._last:
            self._console.print(" ".join((words, eta)).rstrip(), highlight=False)
        self._last = words


def describe(news: News) -> str:
    """How a job stands, in a few words."""
    if news.state == "queued":
        place = f", {news.position - 1} before it" if news.position > 1 else ", next in line" if news.position else ""
        return f"waiting{place}"
    return "drawing"
