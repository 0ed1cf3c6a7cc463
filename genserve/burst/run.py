"""`genserve burst`, step by step: look, warm up, ask, look again, tell.

The person's part goes to stderr while it runs; what came of it goes to stdout, as tables or as JSON.
"""

import asyncio
import signal
import sys
from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path

import msgspec
from rich.console import Console

from common.clock import wall_s
from common.errors import ERRORS, GenServeError
from common.log import configure
from common.messages import RouterStats, StatusReply
from common.settings import API_KEY_VARIABLE, LogSettings
from genserve.burst.door import Door, Trouble
from genserve.burst.http_door import HttpDoor
from genserve.burst.live import Live
from genserve.burst.load import Load, with_jobs
from genserve.burst.orders import orders, warm_up_orders
from genserve.burst.page import page
from genserve.burst.raw_door import RawDoor
from genserve.burst.record import FAILED, Gpu, Options, Request, Run, Totals
from genserve.burst.statistics import summary
from genserve.burst.tables import asked, report
from genserve.burst.verdicts import verdicts
from genserve.client import RouterAddress
from genserve.files import write_atomically
from genserve.paper import paper
from genserve.status import shown_names

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130  # as a shell reports an end by SIGINT
WARM_UP_MAX = 32
REFUSED = ("invalid_api_key", "forbidden")
KEY_NEEDED = (
    "Make a key that may read and generate with `sudo genserve keys add-http NAME` where the gateway runs, then "
    f"export {API_KEY_VARIABLE}=KEY"
)


def burst(options: Options, router: RouterAddress, api_key: str, *, as_json: bool, report_path: Path | None) -> int:
    """Carry it out and tell; the exit status: 1 where a request got no picture that was to get one.

    `api_key`: of HTTP, '' for none; it is told to the gateway alone.
    """
    err = Console(stderr=True)
    configure("burst", LogSettings(level="error"), stream=sys.stderr)  # of the link: what it does is told by the ends
    try:
        run = asyncio.run(_measure(options, router, api_key, err))
    except KeyboardInterrupt:  # before it had begun, or a second one
        err.print("stopped")
        return EXIT_INTERRUPTED
    figures = summary(run)
    said = verdicts(run, figures)
    if report_path is not None:
        write_atomically(report_path, page(run, figures, said).encode())
        err.print(f"[bold green]✔[/] the report is {report_path}", highlight=False, soft_wrap=True)
    if as_json:
        whole = {"summary": figures, "verdicts": said, **msgspec.structs.asdict(run)}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(whole), indent=1).decode() + "\n")
    else:
        paper().print(report(run, figures, said))
    if run.interrupted:
        return EXIT_INTERRUPTED
    if figures.failed:
        err.print(f"{figures.failed} of {figures.requests} requests got no picture", style="red", highlight=False)
    return EXIT_FAILED if figures.failed else 0


async def _measure(options: Options, router: RouterAddress, api_key: str, err: Console) -> Run:
    """Raises GenServeError where nothing can be measured."""
    doors = _doors(options, router, api_key)
    for door in doors.values():
        await door.open()
    try:
        first, *_ = doors.values()
        for door in doors.values():
            status = await _status(door)
        model = _check(status, options)
        gpus = _serving(status, model)
        names = ", ".join(f"{gpu.name} ({gpu.built})" if gpu.built else gpu.name for gpu in gpus)
        err.print(f"{model} on {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}: {names}", highlight=False)
        async with Live(err, gpus, first.status) as live:
            warmed_up = await _warm_up(options, doors, live, len(gpus))
            before, began_at = (await _status(first)).stats, wall_s()
            requests, interrupted = await _load(options, doors, live)
        requests = await with_jobs(requests, doors)
        totals = await _counted_since(first, before)
    finally:
        for door in doors.values():
            await door.close()
    run = Run(
        options=options,
        began_at=began_at,
        version=installed("genserve"),
        model=model,
        gpus=gpus,
        limits=status.limits,
        warmed_up=warmed_up,
        totals=totals,
        requests=tuple(requests),
        interrupted=interrupted,
    )
    err.print(f"[bold green]✔[/] {asked(run)}" if not interrupted else "stopped", highlight=False)
    return run


def _doors(options: Options, router: RouterAddress, api_key: str) -> Mapping[str, Door]:
    doors: dict[str, Door] = {}
    if options.over in ("http", "both"):
        doors["http"] = HttpDoor(options.url, options.model, api_key)
    if options.over in ("zmq", "both"):
        doors["zmq"] = RawDoor(router, options.model)
    return doors


async def _status(door: Door) -> StatusReply:
    try:
        return await door.status()
    except Trouble as trouble:
        if trouble.code in REFUSED:
            raise GenServeError("forbidden", f"{door.address}: {trouble.message}. {KEY_NEEDED}") from trouble
        flag = "--url http://HOST:PORT" if door.name == "http" else "--router tcp://HOST:PORT"
        named = door.address in trouble.message
        raise GenServeError(
            "unavailable",
            f"{trouble.message if named else f'{door.address}: {trouble.message}'}. Start everything with "
            f"`genserve up`, or name what runs with {flag}",
        ) from trouble


def _check(status: StatusReply, options: Options) -> str:
    """The model that will draw. Raises GenServeError where nobody can."""
    model = options.model or status.default_model
    names = sorted(view.card.name for view in status.models)
    if options.model and options.model not in names:
        raise GenServeError("unknown_model", f"there is no model {options.model!r}, only {', '.join(names) or 'none'}")
    if status.storage_full:
        raise GenServeError("storage_full", f"the router takes no jobs: {status.storage_full}")
    if not _serving(status, model):
        states = ", ".join(f"{w.worker_id} is {w.state}{': ' + w.detail if w.detail else ''}" for w in status.workers)
        raise GenServeError(
            "unavailable",
            f"no GPU is ready to draw {model or 'anything'} ({states or 'none is registered'}). "
            "`genserve status --watch` shows when one is",
        )
    return model


def _serving(status: StatusReply, model: str) -> tuple[Gpu, ...]:
    """The GPUs that are ready to draw it."""
    workers = [worker for worker in status.workers if worker.state == "ready" and model in worker.models]
    names = shown_names(workers)
    return tuple(
        Gpu(
            worker_id=worker.worker_id,
            name=names[worker.worker_id],
            host=worker.host,
            built=worker.device.name,
            version=worker.version,
        )
        for worker in workers
    )


async def _warm_up(options: Options, doors: Mapping[str, Door], live: Live, gpus: int) -> int:
    """Draw what is not measured: each GPU has then drawn each size. Raises GenServeError where a picture fails."""
    before = warm_up_orders(options, gpus, WARM_UP_MAX)
    if not before:
        return 0
    live.stage("warm-up", len(before))
    together = msgspec.structs.replace(options, requests=len(before), concurrency=max(gpus, 1), rate_per_s=0.0)
    load = Load(doors, together, on_sent=live.sent, on_end=live.ended)
    for request in await load.run(iter(before)):
        if request.outcome == FAILED:
            code = request.code if request.code in ERRORS else "unavailable"
            raise GenServeError(code, f"the warm-up failed, nothing was measured: {request.message}")
    return len(before)


async def _load(options: Options, doors: Mapping[str, Door], live: Live) -> tuple[list[Request], bool]:
    """The requests and whether Ctrl-C ended them; a second one ends the command at once."""
    live.stage("burst", options.requests)
    load = Load(doors, options, on_sent=live.sent, on_end=live.ended)
    running = asyncio.create_task(load.run(orders(options)))
    interrupted = False

    def stop() -> None:
        nonlocal interrupted
        interrupted = True
        running.cancel()
        loop.remove_signal_handler(signal.SIGINT)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        return await running, interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _counted_since(door: Door, before: RouterStats) -> Totals | None:
    """What the router counted since; None where it does not answer or began anew."""
    try:
        after = (await door.status()).stats
    except Trouble:
        return None
    if after.uptime_s < before.uptime_s:
        return None
    return Totals(
        submitted=after.submitted_total - before.submitted_total,
        done=after.done_total - before.done_total,
        failed=after.failed_total - before.failed_total,
        cancelled=after.cancelled_total - before.cancelled_total,
        refused=after.rejected_total - before.rejected_total,
        retried=after.retried_total - before.retried_total,
    )
