"""`genserve burst` on the command line: what can be said there, and nothing else."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from genserve.burst import words
from genserve.flags import ApiKey, ClientKey, Router, api_key, gateway_url, router_address

REQUESTS_MAX = 20_000  # as many ended jobs as a router remembers: more could not be asked after
CONCURRENCY_MAX = 1000
CONCURRENCY = 8
LOAD, TOLD = "The load", "What is told"


def _flag(*names: str, panel: str | None = LOAD, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **more)


Requests = Annotated[
    int, _flag("--requests", "-n", panel=None, min=1, max=REQUESTS_MAX, metavar="N", help="How many pictures.")
]
Concurrency = Annotated[
    int | None,
    _flag("--concurrency", "-c", panel=None, min=1, max=CONCURRENCY_MAX, metavar="N", show_default=False,
          help=f"Requests under way at one time. \\[default: {CONCURRENCY}]"),
]  # fmt: skip
Rate = Annotated[
    str | None,
    _flag("--rate", panel=None, metavar="5/s", show_default=False,
          help="Let them come at random (Poisson) instead: 5/s, 300/m."),
]  # fmt: skip
Over = Annotated[
    Literal["http", "zmq", "both"], _flag("--over", panel=None, help="The door; both: in turn, to compare them.")
]
Url = Annotated[
    str | None,
    _flag("--url", panel=None, metavar="URL", show_default=False,
          help="The gateway. \\[default: this machine's, http://127.0.0.1:12411]"),
]  # fmt: skip
Sizes = Annotated[
    str, _flag("--sizes", metavar="SIZES", help="E.g. 512x512,auto: mixed by seed; auto is the model's own.")
]
Steps = Annotated[str, _flag("--steps", metavar="STEPS", help="E.g. 4,20,auto: mixed by seed.")]
Model = Annotated[str, _flag("--model", metavar="NAME", show_default=False, help="\\[default: the router's]")]
Priorities = Annotated[str, _flag("--priorities", metavar="LIST", help="E.g. -5,0,5: mixed by seed; higher first.")]
Clients = Annotated[int, _flag("--clients", min=1, max=100, metavar="N", help="As how many clients to ask.")]
GiveUp = Annotated[
    float,
    _flag("--give-up", min=0, max=100, metavar="PERCENT",
          help="Share of the requests whose client gives up within 2 s: it hangs up, over ZeroMQ it says CANCEL."),
]  # fmt: skip
Seed = Annotated[int, _flag("--seed", metavar="N", help="The same seed asks for the same.")]
WarmUp = Annotated[
    int | None,
    _flag("--warm-up", min=0, max=1000, metavar="N", show_default=False,
          help="Pictures before it begins. \\[default: each size once a GPU]"),
]  # fmt: skip
Retries = Annotated[
    int,
    _flag("--retries", min=0, max=100, metavar="N",
          help="How often a request is sent again that was refused for want of room or got no answer."),
]  # fmt: skip
Timeout = Annotated[float, _flag("--timeout", min=1, max=86_400, metavar="SECONDS", help="A request's.")]
Report = Annotated[
    Path | None,
    _flag("--report", panel=TOLD, metavar="FILE.html", show_default=False,
          help="Also write a page with plots, which needs nothing else."),
]  # fmt: skip
AsJson = Annotated[bool, _flag("--json", panel=TOLD, help="Print everything as JSON instead, each request included.")]


def burst(
    *,
    requests: Requests = 200,
    concurrency: Concurrency = None,
    rate: Rate = None,
    over: Over = "http",
    url: Url = None,
    api_key_: ApiKey = None,
    router_: Router = None,
    key_file: ClientKey = None,
    sizes: Sizes = "auto",
    steps: Steps = "auto",
    model: Model = "",
    priorities: Priorities = "0",
    clients: Clients = 1,
    give_up: GiveUp = 0.0,
    seed: Seed = 1,
    warm_up: WarmUp = None,
    retries: Retries = 3,
    timeout: Timeout = 600.0,
    report: Report = None,
    as_json: AsJson = False,
) -> None:
    """Put a load on the running service and say what came of it.

    Looks whether anything is ready to draw, warms up, sends the requests, then
    tells throughput, waits, percentiles, errors and what each GPU did, and what
    that means. The exit status is 1 where a request got no picture, unless its
    client gave up; Ctrl-C cancels what is open and tells of what had ended.
    """
    _check(rate, concurrency, clients, report)
    from genserve.burst.record import Options  # noqa: PLC0415  # keeps --help quick
    from genserve.burst.run import burst as run  # noqa: PLC0415  # keeps --help quick

    router, key = router_address(router_, key_file), api_key(api_key_)
    options = Options(
        over=over,
        url=gateway_url(url),
        router=router.endpoint,
        keyed=router.key is not None or bool(key),
        requests=requests,
        concurrency=0 if rate is not None else concurrency or CONCURRENCY,
        rate_per_s=0.0 if rate is None else words.parse_rate(rate),
        seed=seed,
        model=model,
        sizes=words.parse_sizes(sizes),
        steps=words.parse_steps(steps),
        priorities=words.parse_priorities(priorities),
        clients=clients,
        give_up_percent=give_up,
        retries=retries,
        timeout_s=timeout,
        warm_up=warm_up,
    )
    raise typer.Exit(run(options, router, key, as_json=as_json, report_path=report))


def _check(rate: str | None, concurrency: int | None, clients: int, report: Path | None) -> None:
    """Refuse before asking what could not be done or written afterwards."""
    if rate is not None and concurrency is not None:
        raise typer.BadParameter("it goes in place of --concurrency, not with it", param_hint="--rate")
    if rate is None and clients > (concurrency or CONCURRENCY):
        text = f"{clients} clients need --concurrency {clients} or more: each has at least one request under way"
        raise typer.BadParameter(text, param_hint="--clients")
    if report is not None:
        _check_file(report, "--report")


def _check_file(path: Path, option: str) -> None:
    """Refuse a file that could not be written."""
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder: name a file, e.g. {path / 'burst.html'}", param_hint=option)
    if not path.resolve().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}: create it first", param_hint=option)


def add_to(app: typer.Typer) -> None:
    """The command."""
    app.command(
        epilog="Examples:\n"
        "  genserve burst                              200 pictures, 8 at a time\n"
        "  genserve burst --rate 5/s --steps 4,20 --report burst.html\n"
        "  genserve burst --over both -n 500 -c 2      what HTTP adds to ZeroMQ\n"
        "  genserve burst --json | jq .summary.latency"
    )(burst)
