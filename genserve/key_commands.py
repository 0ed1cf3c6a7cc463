"""`genserve keys …`: what can be said on the command line, and nothing else."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from common.errors import SettingsError
from common.settings import RouterSettings, load_settings
from genserve.flags import ClientKey, Router, router_address

if TYPE_CHECKING:
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
        return Store(folder / "keys", folder / "peers.toml")
    settings = load_settings(RouterSettings, env=os.environ).settings
    peers = Path(settings.peers_file)
    return Store(Path(settings.server_key_file).parent if settings.server_key_file else peers.parent / "keys", peers)


def add_to(app: typer.Typer) -> None:
    """All of them."""
    app.add_typer(keys, name="keys")
