"""Command-line flags made from the declared settings, so that help, defaults and units are written once.

Knows how Typer declares an option; not what any setting does. And --router and --key-file, which many commands share.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import msgspec
import typer
from msgspec import Meta

from common.settings import (
    API_KEY_VARIABLE,
    OLDER_NAMES,
    PREFIX,
    ClientSettings,
    Endpoint,
    GatewaySettings,
    RouterSettings,
    Section,
    load_settings,
)

if TYPE_CHECKING:
    from genserve.client import RouterAddress

ClientKey = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        show_default=False,
        help="the key to connect with \\[default: this host's, where you may read it] [GENSERVE_CLIENT_KEY_FILE]",
    ),
]
Router = Annotated[
    str | None,
    typer.Option(
        "--router",
        metavar="ENDPOINT",
        show_default=False,
        help="the router's client endpoint \\[default: tcp://127.0.0.1:12412] [GENSERVE_GATEWAY_ROUTER_ENDPOINT]",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        show_default=False,
        help="a key of HTTP, where it asks for one; the variable is not seen by who lists processes "
        "\\[GENSERVE_API_KEY]",
    ),
]


def description(section: type[Section], key: str) -> str:
    """What a setting is, as it was declared."""
    hint = get_type_hints(section, include_extras=True)[key]
    return next(meta.description for meta in hint.__metadata__ if isinstance(meta, Meta) and meta.description)


def default(section: type[Section], key: str) -> Any:
    """The value of a setting that nobody sets."""
    return getattr(section(), key)


def variable(section: type[Section], key: str) -> str:
    """The environment variable of a setting; the older name where it has one."""
    older = [name for name, place in OLDER_NAMES.items() if place == (section.SECTION, key)]
    return older[0] if older else f"{PREFIX}{section.SECTION}_{key}".upper()


def flag(section: type[Section], key: str, *, metavar: str = "", name: str = "", panel: str | None = None) -> Any:
    """The option of a setting: `--key`, or `name`."""
    value = default(section, key)
    shown = f" \\[default: {value}]" if value != "" else ""  # a bare bracket would be markup to Rich
    return typer.Option(
        name or f"--{key.replace('_', '-')}",
        help=f"{description(section, key)}{shown} [{variable(section, key)}]",
        metavar=metavar or None,
        show_default=False,
        rich_help_panel=panel,
    )


def gateway_url(flag_: str | None) -> str:
    """Where the gateway of `--url`, else of this machine's settings, answers; without a slash at its end."""
    if flag_ is None:
        from common.sockets import bracketed, reached_at  # noqa: PLC0415  # keeps --help quick

        settings = load_settings(GatewaySettings, env=os.environ).settings
        return f"http://{bracketed(reached_at(settings.host))}:{settings.port}"
    if not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", flag_):
        raise typer.BadParameter(f"{flag_!r} is not http://HOST:PORT, e.g. http://127.0.0.1:12411", param_hint="--url")
    return flag_.rstrip("/")


def api_key(flag_: str | None) -> str:
    """The key of `--api-key`, else of the environment; '' for none."""
    key = flag_ if flag_ is not None else os.environ.get(API_KEY_VARIABLE, "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        where = "--api-key" if flag_ is not None else API_KEY_VARIABLE
        raise typer.BadParameter("it has characters that no key has, e.g. a space or a line's end", param_hint=where)
    return key


def client_endpoint(flag_: str | None) -> str:
    """Where the router of `--router`, else of this machine's settings, listens to clients."""
    if flag_ is not None:
        try:
            return msgspec.convert(flag_, Endpoint)
        except msgspec.ValidationError:
            raise typer.BadParameter(
                f"{flag_!r} is not tcp://HOST:PORT, e.g. tcp://127.0.0.1:12412", param_hint="--router"
            ) from None
    gateway = load_settings(GatewaySettings, env=os.environ)
    if gateway.sources["gateway.router_endpoint"] != "default":
        return gateway.settings.router_endpoint
    from common.sockets import connectable  # noqa: PLC0415  # keeps --help quick

    return connectable(load_settings(RouterSettings, env=os.environ).settings.client_endpoint)


def router_address(flag_: str | None, key_file: Path | None) -> "RouterAddress":
    """The router of `--router`, else of this machine's settings, and the key of `--key-file`, else of these."""
    from common.keys import load_client_key  # noqa: PLC0415  # keeps --help quick
    from genserve.client import RouterAddress  # noqa: PLC0415  # likewise

    endpoint = client_endpoint(flag_)
    settings = load_settings(ClientSettings, env=os.environ, flags={"key_file": key_file and str(key_file)}).settings
    return RouterAddress(endpoint, load_client_key(settings.key_file, os.environ))
