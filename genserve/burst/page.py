"""The report as one HTML page that needs nothing else: no script, no network, no font, no picture of its own.

Pure but for reading its stylesheet, which is part of the package. It suits a desk and a phone, light and dark.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files

from genserve.burst.plots import plots
from genserve.burst.record import DONE, GAVE_UP, Options, Request, Run
from genserve.burst.statistics import Group, Spread, Summary, duration, percent
from genserve.burst.tables import DOORS, asked, headline, percentile_rows
from genserve.burst.verdicts import Verdict
from genserve.status import number

SLOWEST_SHOWN = 8
Cell = str | tuple[str, str]  # HTML, or HTML and its class


def page(run: Run, figures: Summary, said: Sequence[Verdict]) -> str:
    """The whole page."""
    style = (files("genserve.burst") / "page.css").read_text("utf-8")
    title, drawn = headline(run, figures), "\n".join(plots(run, figures))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>GenServe burst: {escape(title)}</title>\n<style>\n{style}</style></head>\n<body><main>\n"
        f"{_header(run, title)}\n{_tiles(figures)}\n{_verdicts(said)}\n"
        f'<div class="grid">\n{drawn}\n</div>\n'
        f"{''.join(_tables(run, figures))}{_footer(run)}\n</main></body></html>\n"
    )


def _header(run: Run, title: str) -> str:
    began = datetime.fromtimestamp(run.began_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    gpus = f"{len(run.gpus)} GPU{'s' if len(run.gpus) != 1 else ''} ({', '.join(gpu.name for gpu in run.gpus)})"
    facts = " · ".join((asked(run), f"{run.model} on {gpus}", began))
    words = f'<h1>{escape(title)}</h1><p class="dim">{escape(facts)}</p>'
    return f'<header><p class="eyebrow">GenServe burst</p>{words}</header>'


def _tiles(figures: Summary) -> str:
    latency, wait = figures.latency, figures.wait
    tiles = (
        ("pictures a second", number(figures.pictures_per_s), ""),
        ("median latency", duration(latency.p50) if latency else "–", ""),
        ("95 % within", duration(latency.p95) if latency else "–", ""),
        ("median wait", duration(wait.p50) if wait else "–", ""),
        ("GPUs busy", percent(figures.busy), ""),
        ("without a picture", str(figures.failed), " wrong" if figures.failed else ""),
    )
    shown = "".join(f'<div class="tile{kind}"><b>{value}</b><span>{name}</span></div>' for name, value, kind in tiles)
    return f'<section class="tiles">{shown}</section>'


def _verdicts(said: Sequence[Verdict]) -> str:
    lines = "".join(
        f'<li class="{verdict.tone}">{escape(verdict.text)}'
        f"{f'<span class=advice>{escape(verdict.advice)}</span>' if verdict.advice else ''}</li>"
        for verdict in said
    )
    return f'<section class="card"><ul class="verdicts">{lines}</ul></section>'


def _tables(run: Run, figures: Summary) -> Iterable[str]:
    yield _times(figures)
    if figures.gpus:
        yield _gpus(run, figures)
    titles = {"shape": "Shapes", "door": "Doors", "client": "Clients", "priority": "Priorities"}
    for kind, title in titles.items():
        groups = [group for group in figures.groups if group.kind == kind]
        if groups:
            yield _groups(title, groups)
    if figures.errors or figures.refusals:
        yield _errors(figures)
    yield _slowest(run)
    yield _settings(run, figures)


def _times(figures: Summary) -> str:
    rows: list[list[Cell]] = [
        [escape(name), *_percentiles(spread), str(spread.count), (escape(meaning), "text meaning")]
        for name, meaning, spread in percentile_rows(figures)
    ]
    return _table("Times", ("", "p50", "p90", "p95", "p99", "max", "of", ("", "text")), rows)


def _percentiles(spread: Spread) -> list[str]:
    values = (spread.p50, spread.p90, spread.p95, spread.p99, spread.max)
    return [duration(max(0.0, value)) for value in values]


def _gpus(run: Run, figures: Summary) -> str:
    built = {gpu.worker_id: gpu.built for gpu in run.gpus}
    rows: list[list[Cell]] = [
        [
            escape(gpu.name),
            str(gpu.pictures),
            f'<span class="share"><i style="width:{gpu.work_share:.1%}"></i></span>{percent(gpu.work_share)}',
            percent(gpu.busy_share),
            duration(gpu.idle_while_waiting_s),
            duration(gpu.longest_gap_s),
            duration(gpu.run.p50) if gpu.run else "–",
            duration(gpu.step_s) if gpu.step_s else "–",
            str(gpu.failed),
            (escape(built.get(gpu.worker_id, "")), "text meaning"),
        ]
        for gpu in figures.gpus
    ]
    heads: list[Cell] = ["", "pictures", "share of the work", "busy", "idle while jobs waited", "longest gap"]
    heads += ["median run", "a step", "failed", ("", "text")]
    return _table("GPUs", heads, rows)


def _groups(title: str, groups: Sequence[Group]) -> str:
    rows: list[list[Cell]] = []
    for group in groups:
        row: list[Cell] = [escape(DOORS.get(group.name, group.name)), f"{group.done} of {group.requests}"]
        for spread in (group.latency, group.wait, group.run):
            row += [duration(spread.p50), duration(spread.p95)] if spread else ["–", "–"]
        rows.append(row)
    return _table(title, ("", "done", "latency p50", "p95", "wait p50", "p95", "run p50", "p95"), rows)


def _errors(figures: Summary) -> str:
    rows: list[list[Cell]] = [
        [f"<code>{escape(kind.code)}</code>", str(kind.count), (escape(kind.message), "text")]
        for kind in figures.errors
    ]
    rows += [
        [f"<code>{escape(kind.code)}</code>", str(kind.count), ("sent again", "text")] for kind in figures.refusals
    ]
    return _table("Errors", ("", "count", ("what was said", "text")), rows)


def _slowest(run: Run) -> str:
    done = sorted((r for r in run.requests if r.outcome == DONE), key=lambda r: -r.latency_s)[:SLOWEST_SHOWN]
    bad = [r for r in run.requests if r.outcome not in (DONE, GAVE_UP)][:SLOWEST_SHOWN]
    names = {gpu.worker_id: gpu.name for gpu in run.gpus}
    rows = [_one(request, names) for request in (*bad, *done)]
    heads = ("", "latency", "waited", "ran", "GPU", ("shape", "text"), ("job: genserve jobs show ID", "text"))
    return _table("The slowest" if not bad else "Without a picture, and the slowest", heads, rows) if rows else ""


def _one(request: Request, names: dict[str, str]) -> list[Cell]:
    job = request.job
    started = bool(job and job.started_at and job.ended_at)
    return [
        f"request {request.order.number}" + (f" <code>{escape(request.code)}</code>" if request.code else ""),
        duration(request.latency_s),
        duration(job.started_at - job.created_at) if job and started else "–",
        duration(job.ended_at - job.started_at) if job and started else "–",
        escape(names.get(job.worker_id, job.worker_id)) if job and job.worker_id else "–",
        (escape(request.shape), "text"),
        (f"<code>{escape(request.job_id or '–')}</code>", "text"),
    ]


def _settings(run: Run, figures: Summary) -> str:
    options = run.options
    rows: list[tuple[str, str]] = [
        ("command", command(options)),
        ("address", " and ".join(_addresses(options))),
        ("warm-up", f"{run.warmed_up} pictures, not counted"),
        ("clients", f"{options.clients}, {options.give_up_percent:g} % of the requests give up"),
        ("retries", f"up to {options.retries} for a request; {figures.tries_again} were needed"),
        ("places in the queue", f"{run.limits.gpu_queue_size} a GPU, {run.limits.global_queue_size} behind them"),
        ("GenServe", f"{run.version}; GPU daemons {', '.join(sorted({gpu.version for gpu in run.gpus})) or '–'}"),
    ]
    if run.totals is not None:
        t = run.totals
        counted = f"{t.submitted} accepted, {t.done} done, {t.failed} failed, {t.cancelled} cancelled, "
        rows.append(("the router counted", f"{counted}{t.refused} refused, {t.retried} tried again"))
    if figures.unknown_jobs:
        rows.append(("not known", f"of {figures.unknown_jobs} jobs the service told nothing more afterwards"))
    cells: list[list[Cell]] = [[escape(name), (escape(value), "text")] for name, value in rows]
    return _table("This run", ("", ("", "text")), cells)


def command(options: Options) -> str:
    """The command that repeats the run, but for addresses."""
    words = ["genserve burst", f"--requests {options.requests}"]
    words.append(f"--rate {options.rate_per_s:g}/s" if options.rate_per_s else f"--concurrency {options.concurrency}")
    words.append(f"--over {options.over} --seed {options.seed}")
    if options.sizes != ((0, 0),):
        words.append("--sizes " + ",".join(f"{width}x{height}" if width else "auto" for width, height in options.sizes))
    if options.steps != (0,):
        words.append("--steps " + ",".join(str(steps or "auto") for steps in options.steps))
    if options.priorities != (0,):
        words.append("--priorities=" + ",".join(map(str, options.priorities)))
    if options.clients > 1:
        words.append(f"--clients {options.clients}")
    if options.give_up_percent:
        words.append(f"--give-up {options.give_up_percent:g}")
    if options.model:
        words.append(f"--model {options.model}")
    return " ".join(words)


def _addresses(options: Options) -> list[str]:
    return [
        *([options.url] if options.over in ("http", "both") else []),
        *([options.router] if options.over in ("zmq", "both") else []),
    ]


def _table(title: str, heads: Sequence[Cell], rows: Sequence[Sequence[Cell]]) -> str:
    def cell(tag: str, content: Cell) -> str:
        html, kind = content if isinstance(content, tuple) else (content, "")
        return f"<{tag} class='{kind}'>{html}</{tag}>" if kind else f"<{tag}>{html}</{tag}>"

    head = "".join(cell("th", each) for each in heads)
    head = (
        f"<thead><tr>{head}</tr></thead>" if head.replace("<th></th>", "").replace("<th class='text'></th>", "") else ""
    )
    body = "".join(f"<tr>{''.join(cell('td', each) for each in row)}</tr>" for row in rows)
    return (
        f'<section class="card"><h2>{escape(title)}</h2><div class="scroll"><table>{head}<tbody>{body}</tbody></table>'
        "</div></section>\n"
    )


def _footer(run: Run) -> str:
    return (
        f"<footer>Made by genserve burst {escape(run.version)}. Latency is by this client's clock; waits, runs and the "
        "GPUs' rows are by the router's. docs/burst.md tells what each figure and each verdict means.</footer>"
    )
