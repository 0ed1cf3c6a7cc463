"""`genserve keys …`: what can be said on the command line, and nothing else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from common.errors import SettingsError
from common.settings import GatewaySettings, RouterSettings, load_settings
from genserve.flags import ClientKey, Router, router_address

if TYPE_CHECKING:
    from genserve.http_keys import HttpStore
    from genserve.keys import Store

Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="FOLDER",
        show_default=False,
        help="Where keys/ and peers.toml lie. \\[default: where the router's settings have them, else /etc/genserve]",
    ),
]
HttpFile = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        show_default=False,
        help="The file of keys. \\[default: gateway.http_keys_file, else /etc/genserve/http-keys.toml]",
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.", show_default=False)]

keys = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Make, list and revoke the keys with which hosts and programs come in.",
)


@keys.command(epilog="Examples:\n  sudo genserve keys init\n  genserve keys init --folder keys-to-try")
def init(
    *,
    folder: Folder = None,
    host: Annotated[
        str, typer.Option(metavar="NAME", help="What to call this host. \\[default: its own name]", show_default=False)
    ] = "",
) -> None:
    """Make the router's key, and this host's own: its gateway's, its GPU daemons', its operator's.

    From the router's next start on, every peer needs a key, those on this host
    too, and the router may listen on any address. Keys that are there already
    stay as they are.
    """
    from genserve.key_pages import show_init  # noqa: PLC0415  # keeps --help quick

    store = _store(folder)
    with _telling():
        show_init(store, store.init(host), folder is None)


@keys.command(
    epilog="Examples:\n"
    "  sudo genserve keys new host-b --role daemon\n"
    "  sudo genserve keys new lab --role client -o lab.key\n"
    "  sudo genserve keys new host-b --role daemon -o - | ssh root@host-b 'umask 077; cat > daemon.key'"
)
def new(
    name: Name,
    *,
    role: Annotated[
        Literal["daemon", "client", "gateway", "admin"],
        typer.Option(help="What it may do.", show_default=False),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            help="The file to copy to the other host; - is stdout. \\[default: NAME.key beside the other keys]",
        ),
    ] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Revoke the present key of this name by the same stroke.")
    ] = False,
    folder: Folder = None,
) -> None:
    """Make a key for another host, or for a program.

    daemon: one a host, its GPUs are called NAME/cuda:0 and so on. client: sends
    jobs, sees its own. gateway: for a gateway on another host. admin: sees and
    touches everyone's jobs.
    """
    from genserve.key_pages import show_new  # noqa: PLC0415  # keeps --help quick

    store = _store(folder)
    path = None if output == "-" else Path(output) if output else store.keys_folder / f"{name}.key"
    with _telling():
        show_new(store.new(name, role, path, again=replace))


@keys.command("list", epilog="Examples:\n  sudo genserve keys list\n  genserve keys list --json")
def list_(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    folder: Folder = None,
    router_: Router = None,
    key_file: ClientKey = None,
) -> None:
    """List the keys: names, roles, since when, and who is connected.

    Who is connected is the router's to tell, to an admin's key.
    """
    from genserve.key_pages import show_list  # noqa: PLC0415  # keeps --help quick

    with _telling():
        entries = _store(folder).entries()
    show_list(entries, lambda: router_address(router_, key_file), as_json=as_json)


@keys.command(epilog="Example:\n  sudo genserve keys revoke host-b")
def revoke(name: Name, *, folder: Folder = None) -> None:
    """Let a key in no more, now: the router cuts its open connections within a second.

    What its GPUs were drawing is drawn elsewhere. Jobs that it sent stay. Said
    again, it changes nothing.
    """
    from genserve.key_pages import show_revoked  # noqa: PLC0415  # keeps --help quick

    with _telling():
        show_revoked(*_store(folder).revoke(name))


@keys.command(
    "add-http",
    epilog="Examples:\n"
    "  sudo genserve keys add-http studio\n"
    "  sudo genserve keys add-http lab --rights generate --requests-per-minute 60 --gpu-seconds-per-minute 120\n"
    "  sudo genserve keys add-http prometheus --rights read",
)
def add_http(
    name: Name,
    *,
    rights: Annotated[
        str, typer.Option(metavar="RIGHT,…", help="What it may: generate, read, admin.", show_default=True)
    ] = "generate,read",
    requests_per_minute: Annotated[
        int | None, typer.Option(help="How often it may ask for pictures.", show_default="as it likes")
    ] = None,
    gpu_seconds_per_minute: Annotated[
        float | None, typer.Option(help="How long GPUs may draw for it.", show_default="as it takes")
    ] = None,
    jobs_max: Annotated[
        int | None, typer.Option(help="Jobs that may wait or run at one time.", show_default="as the queue has room")
    ] = None,
    weight: Annotated[float, typer.Option(help="Of its fair share, where others have 1.")] = 1.0,
    file: HttpFile = None,
) -> None:
    """Make a key for a program that uses HTTP; its text is shown this once.

    generate: ask for pictures, see and cancel its own jobs. read: see how the
    service stands. admin: all of this, and everybody's jobs. From the first key
    on a gateway that others can reach asks for one.
    """
    from genserve.http_keys import show_added  # noqa: PLC0415  # keeps --help quick

    with _telling():
        store = _http_store(file)
        key, text = store.add(
            name,
            [right.strip() for right in rights.split(",")],
            requests_per_minute=requests_per_minute,
            gpu_seconds_per_minute=gpu_seconds_per_minute,
            jobs_max=jobs_max,
            weight=weight,
        )
    show_added(key, text, store.path)


@keys.command("list-http", epilog="Examples:\n  sudo genserve keys list-http\n  genserve keys list-http --json")
def list_http(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False, file: HttpFile = None
) -> None:
    """List the keys of HTTP: names, rights, limits, since when. Their texts are kept nowhere."""
    from genserve.http_keys import show_list  # noqa: PLC0415  # keeps --help quick

    with _telling():
        entries = _http_store(file).entries()
    show_list(entries, as_json=as_json)


@keys.command("revoke-http", epilog="Example:\n  sudo genserve keys revoke-http lab")
def revoke_http(name: Name, *, file: HttpFile = None) -> None:
    """Let a key of HTTP in no more, within two seconds; what it has open is cut. Its jobs stay."""
    from genserve.http_keys import show_revoked  # noqa: PLC0415  # keeps --help quick

    with _telling():
        show_revoked(*_http_store(file).revoke(name))


def _http_store(file: Path | None) -> "HttpStore":
    from genserve.http_keys import HttpStore  # noqa: PLC0415  # keeps --help quick

    return HttpStore(file or Path(load_settings(GatewaySettings, env=os.environ).settings.http_keys_file))


@contextmanager
def _telling() -> Iterator[None]:
    """What cannot be done is told in one sentence, which says what can: nothing is to be started again."""
    try:
        yield
    except SettingsError as error:
        typer.echo(f"genserve: {error.message}", err=True)
        raise typer.Exit(1) from None


def _store(folder: Path | None) -> "Store":
    from genserve.keys import Store  # noqa: PLC0415  # keeps --help quick

    if folder is not None:
        return Store(folder / "keys", folder / "peers.toml", folder)
    settings = load_settings(RouterSettings, env=os.environ).settings
    peers = Path(settings.peers_file)
    return Store(Path(settings.server_key_file).parent if settings.server_key_file else peers.parent / "keys", peers)


def add_to(app: typer.Typer) -> None:
    """All of them."""
    app.add_typer(keys, name="keys")
