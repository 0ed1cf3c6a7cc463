"""From defaults, file, environment and flags to one checked section: each wins over those before it.

A bad or unknown key, in any section, stops the start and says what would be right.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from common.errors import SettingsError
from common.settings.sections import OLDER_NAMES, SECTIONS, LogSettings, Section
from common.settings.words import right

DEFAULT_FILE = Path("/etc/genserve/genserve.toml")
PREFIX = "GENSERVE_"

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Loaded(Generic[S]):
    """A process's settings, how it logs, and where each value came from ('router.port': 'flag')."""

    settings: S
    log: LogSettings
    sources: Mapping[str, str]


def load_settings(
    section: type[S],
    *,
    env: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
    log_flags: Mapping[str, Any] | None = None,
) -> Loaded[S]:
    """The settings of one process. A flag of value None is one not given.

    Raises SettingsError for a file that cannot be read, an unknown key or a bad value, in any section.
    """
    values: dict[str, dict[str, tuple[Any, str]]] = {name: {} for name in SECTIONS}
    _read_file(env, values)
    _read_environment(env, values)
    for name, given in ((section.SECTION, flags), (LogSettings.SECTION, log_flags)):
        for key, value in (given or {}).items():
            if value is not None:
                values[name][key] = (value, f"--{key.replace('_', '-')}")
    built = {name: _build(SECTIONS[name], found) for name, found in values.items()}
    sources = {
        f"{name}.{key}": values[name][key][1] if key in values[name] else "default"
        for name in (section.SECTION, LogSettings.SECTION)
        for key in SECTIONS[name].__struct_fields__
    }
    settings, log = built[section.SECTION], built[LogSettings.SECTION]
    assert isinstance(settings, section)
    assert isinstance(log, LogSettings)
    return Loaded(settings, log, sources)


def _read_file(env: Mapping[str, str], values: dict[str, dict[str, tuple[Any, str]]]) -> None:
    named = env.get(f"{PREFIX}CONFIG", "")
    path = Path(named) if named else DEFAULT_FILE
    if not named and not path.exists():
        return
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from None
    for name, table in tables.items():
        if name not in SECTIONS:
            raise SettingsError(f"{path}: unknown table [{name}]{_near(name, SECTIONS)}")
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {name} must be a table: [{name}]")
        for key, value in table.items():
            _known(name, key, f"{path}: [{name}] {key}")
            values[name][key] = (value, str(path))


def _read_environment(env: Mapping[str, str], values: dict[str, dict[str, tuple[Any, str]]]) -> None:
    names = {
        f"{PREFIX}{name.upper()}_{key.upper()}": (name, key)
        for name, section in SECTIONS.items()
        for key in section.__struct_fields__
    }
    for variable, (name, key) in OLDER_NAMES.items():
        if env.get(variable, "").strip():
            values[name][key] = (env[variable].strip(), variable)
    for variable in sorted(env):
        if not variable.startswith(PREFIX) or variable == f"{PREFIX}CONFIG":
            continue
        if variable not in names:
            raise SettingsError(f"unknown environment variable {variable}{_near(variable, names)}")
        name, key = names[variable]
        values[name][key] = (env[variable], variable)


def _build(section: type[Section], found: Mapping[str, tuple[Any, str]]) -> Section:
    types = {field.name: field.type for field in msgspec.structs.fields(section)}
    converted = {
        key: _convert(value, types[key], source, f"{section.SECTION}.{key}") for key, (value, source) in found.items()
    }
    try:
        return section(**converted)
    except ValueError as error:
        raise SettingsError(f"[{section.SECTION}]: {error}") from None


def _convert(value: Any, type_: Any, source: str, name: str) -> Any:
    text = isinstance(value, str)
    if text and value.lower() in ("yes", "on", "no", "off"):  # as people write booleans
        try:
            return msgspec.convert(value, type_)
        except msgspec.ValidationError:
            value = "true" if value.lower() in ("yes", "on") else "false"
    try:
        if text and value.lstrip()[:1] in ("{", "["):
            return msgspec.json.decode(value, type=type_)
        return msgspec.convert(value, type_, strict=not text)
    except (msgspec.ValidationError, msgspec.DecodeError):
        raise SettingsError(f"{name} = {value!r} (from {source}) is not right: say {right(type_)}") from None


def _known(section: str, key: str, where: str) -> None:
    fields = SECTIONS[section].__struct_fields__
    if key not in fields:
        raise SettingsError(f"{where}: there is no such setting{_near(key, fields)}")


def _near(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"
