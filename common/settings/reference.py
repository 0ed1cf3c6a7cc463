"""The settings as a commented TOML file: each one at its default, switched off, with what it means.

Pure. Made from `sections` and nothing else, so that the file on an operator's disk cannot differ from the
program. Taking away the `#` at the beginning of every setting's line gives a file that says the defaults.
"""

import hashlib
import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any, get_type_hints

import msgspec
from msgspec import Meta

from common.settings.loading import PREFIX
from common.settings.sections import OLDER_NAMES, SECTIONS, Section
from common.settings.words import right

LINE_CHARACTERS = 118
DIGEST_CHARACTERS = 16
_UNITS = {"s": "seconds", "mb": "MiB", "gb": "GiB", "bytes": "bytes"}
_UNIT_OF_NAME = re.compile(rf"_({'|'.join(_UNITS)})(?:_min|_max)?$")

_HEAD = """\
GenServe's settings, read by each process when it starts.

Each setting stands here at its default, switched off by the # at the beginning of its line: take the # away and
change the value. Above it: what it is; in brackets what may be said, and the environment variable that wins over this
file (a flag of the command wins over both). An unknown key or a value out of range stops the start and says what
would be right. `sudo genserve upgrade` brings a change into effect, one process after another."""


def reference(values: Mapping[tuple[str, str], Any] | None = None) -> str:
    """The file's text. `values`: what is switched on in it, by (section, key)."""
    chosen = values or {}
    lines = _comment(_HEAD)
    for section in SECTIONS.values():
        lines += ["", "", *_comment(section.__doc__ or ""), f"[{section.SECTION}]"]
        for field in msgspec.structs.fields(section):
            given = chosen.get((section.SECTION, field.name))
            lines += ["", *_explained(section, field.name), _line(section, field.name, given)]
    return "\n".join([*lines, "", f"# {digest_line()}", ""])


def digest_line() -> str:
    """What tells, in a file made from a reference and changed since, which reference that was."""
    said = [
        "\n".join([*_explained(section, key), _line(section, key, None)])
        for section in SECTIONS.values()
        for key in section.__struct_fields__
    ]
    digest = hashlib.sha256("\n".join(said).encode()).hexdigest()[:DIGEST_CHARACTERS]
    return f"Made from reference {digest}: `genserve install` tells by this line when there are other settings."


def _explained(section: type[Section], key: str) -> list[str]:
    hint = get_type_hints(section, include_extras=True)[key]
    what = next(meta.description for meta in hint.__metadata__ if isinstance(meta, Meta) and meta.description)
    unit = _UNIT_OF_NAME.search(key)
    said = f"{right(hint)}{f', in {_UNITS[unit[1]]}' if unit else ''}"
    variables = [f"{PREFIX}{section.SECTION}_{key}".upper()]
    variables += [older for older, place in OLDER_NAMES.items() if place == (section.SECTION, key)]
    return [*_comment(what), *_comment(f"({said}) [{', '.join(variables)}]")]


def _line(section: type[Section], key: str, given: Any) -> str:
    value = getattr(section(), key)
    return f"#{key} = {_toml(value)}" if given is None else f"{key} = {_toml(given)}"


def _comment(text: str) -> list[str]:
    paragraphs = text.strip().split("\n\n")
    wrapped = [textwrap.wrap(p, LINE_CHARACTERS - 2, break_long_words=False) for p in paragraphs]
    lines = [line for paragraph in wrapped for line in (*paragraph, "")][:-1]
    return [f"# {line}".rstrip() for line in lines]


def _toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case dict():
            return f"{{ {', '.join(f'{_toml(key)} = {_toml(each)}' for key, each in value.items())} }}"
        case tuple() | list():
            return f"[{', '.join(map(_toml, value))}]"
    raise TypeError(f"a setting's value that TOML has no words for here: {value!r}")
