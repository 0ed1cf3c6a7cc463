"""Command-line flags made from the declared settings, so that help, defaults and units are written once.

Knows how Typer declares an option; not what any setting does.
"""

from typing import Any, get_type_hints

import typer
from msgspec import Meta

from common.settings import OLDER_NAMES, PREFIX, Section


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
