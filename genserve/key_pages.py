"""What people are shown of keys: what was made, what to do next, who may come in and who is there."""

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from common.clock import wall_s
from common.errors import GenServeError
from common.keys import CLIENT_FILE, DAEMON_FILE, GATEWAY_FILE, SERVER_FILE
from common.messages import KeyView
from common.peers import PeerEntry, role_words
from genserve.client import Client, RouterAddress
from genserve.keys import Made, Store, write_out
from genserve.paper import paper
from genserve.status import seconds

QUIET_AFTER_S = 10.0  # of a connected peer: one that heartbeats is heard every second
ANSWER_TIMEOUT_S = 2.0  # of a router that is asked who is connected
ROLE_STYLES = {"daemon": "cyan", "client": "", "gateway": "magenta", "admin": "yellow"}
WHERE_TO_SET = (
    ("[router]", "server_key_file", SERVER_FILE),
    ("[gateway]", "key_file", GATEWAY_FILE),
    ("[gpu_daemon]", "key_file", DAEMON_FILE),
    ("[client]", "key_file", CLIENT_FILE),
)


def show_init(store: Store, made: Sequence[Made], usual: bool) -> None:
    """The keys of this host, and what to do with them. `usual`: they lie where units look for them."""
    console = Console(stderr=True)
    for one in made:
        sign, was = ("[bold green]✔[/]", "made") if one.new else ("[dim]·[/]", "was there")
        what = "the router's own key" if one.key.role == "server" else f"{one.key.role} key [bold]{one.key.name}[/]"
        console.print(f"{sign} {was}: {escape(str(one.path))}  {what}", highlight=False, soft_wrap=True)
    console.print(f"  who may come in: {escape(str(store.peers_file))}", highlight=False, soft_wrap=True)
    if not usual:
        console.print("\n[dim]# in the settings file that GENSERVE_CONFIG names, if it is not /etc/genserve:[/]")
        for table, setting, name in WHERE_TO_SET:
            path = (store.keys_folder / name).absolute()
            console.print(f'{escape(table)}\n{setting} = "{escape(str(path))}"', highlight=False, soft_wrap=True)
            if name == SERVER_FILE:
                peers = escape(str(store.peers_file.absolute()))
                console.print(f'peers_file = "{peers}"', highlight=False, soft_wrap=True)
    console.print(
        "\nThe router asks for keys from its next start on. For another host's GPUs:\n"
        f"  {escape(store.command('new', 'HOST', '--role', 'daemon')).replace('HOST', '[dim]HOST[/]', 1)}",
        highlight=False,
        soft_wrap=True,
    )


def show_new(made: Made) -> None:
    """The new key: its file, or itself on stdout."""
    console = Console(stderr=True)
    key = made.key
    if made.path == Path("-"):
        write_out(key)
        return
    console.print(
        f"[bold green]✔[/] {escape(str(made.path))}  {key.role} key [bold]{key.name}[/]: {role_words(key.role)}",
        highlight=False,
        soft_wrap=True,
    )
    setting = {"daemon": "gpu_daemon.key_file", "gateway": "gateway.key_file"}.get(key.role, "client.key_file")
    console.print(
        f"  Copy it to where it is used, for its reader's eyes alone (chmod 600), name it there in {setting},\n"
        "  and delete it here. The router lets it in already.",
        highlight=False,
        soft_wrap=True,
    )


def show_revoked(entry: PeerEntry, now: bool) -> None:
    """What became of a key. `now`: it was valid until this command."""
    console = Console(stderr=True)
    if now:
        text = f"[bold green]✔[/] the {entry.role} key [bold]{entry.name}[/] is revoked: the router cuts it off now"
    else:
        assert entry.revoked is not None
        text = f"[dim]·[/] the {entry.role} key [bold]{entry.name}[/] was revoked before, on {_day(entry.revoked)}"
    console.print(text, highlight=False, soft_wrap=True)


def show_list(entries: Sequence[PeerEntry], router: Callable[[], RouterAddress], *, as_json: bool) -> None:
    """All keys, and what the router knows of them if it can be asked."""
    heard, why_not = _heard(router)
    if as_json:
        rows = [
            {
                **msgspec.to_builtins(entry),
                "revoked": None if entry.revoked is None else entry.revoked.isoformat(),
                "connections": heard[entry.name].connections if entry.valid and entry.name in heard else None,
                "seen_at": heard[entry.name].seen_at if entry.valid and entry.name in heard else None,
            }
            for entry in entries
        ]
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode() + "\n")
        return
    paper().print(keys_page(entries, heard, why_not, now=wall_s()))


def _heard(router: Callable[[], RouterAddress]) -> tuple[Mapping[str, KeyView], str]:
    """What the router knows by key, or why it was not told."""
    try:
        with Client(router(), answer_timeout_s=ANSWER_TIMEOUT_S) as client:
            return {view.name: view for view in client.heard_keys()}, ""
    except GenServeError as error:
        return {}, error.message


def keys_page(
    entries: Sequence[PeerEntry], heard: Mapping[str, KeyView], why_not: str, *, now: float
) -> RenderableType:
    """The keys for a terminal of 80 columns or more. `now`: wall seconds."""
    if not entries:
        return Text(" No key yet: genserve keys init", style="yellow")
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("name", overflow="fold")
    for column in ("role", "created", "state"):
        table.add_column(column, no_wrap=True)
    for entry in entries:
        table.add_row(
            Text(entry.name, style="bold" if entry.valid else "dim"),
            Text(entry.role, style=ROLE_STYLES[entry.role] if entry.valid else "dim"),
            Text(_day(entry.created), style="" if entry.valid else "dim"),
            _state(entry, heard.get(entry.name), bool(why_not), now),
        )
    parts: list[RenderableType] = [Text(""), Text(" Keys", style="bold"), Padding(table, (0, 0, 0, 2)), Text("")]
    if why_not:
        parts += [Padding(Text(f"⚠ who is connected is not known: {why_not}", style="yellow"), (0, 0, 0, 1)), Text("")]
    return Group(*parts)


def _state(entry: PeerEntry, view: KeyView | None, unknown: bool, now: float) -> Text:
    if entry.revoked is not None:
        return Text(f"revoked {_day(entry.revoked)}", style="red")
    if view is None:
        return Text("not known" if unknown else "not seen yet", style="dim")
    silent_s = max(0.0, now - view.seen_at)
    if not view.connections:
        return Text(f"seen {seconds(silent_s)} ago")
    there = "connected" if view.connections == 1 else f"{view.connections} connections"
    return Text.assemble(
        (f"● {there}", "green"), f", quiet for {seconds(silent_s)}" if silent_s > QUIET_AFTER_S else ""
    )


def _day(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d")
