"""From defaults, file, environment and flags to one checked section: each wins over those before it.

A bad or unknown key, in any section, stops the start and says what would be right.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from common.errors import SettingsError
from common.settings.sections import OLDER_NAMES, SECTIONS, LogSettings, Section
from common.settings.words import right

DEFAULT_FILE = Path("/etc/genserve/genserve.toml")
PREFIX = "GENSERVE_"
API_KEY_VARIABLE = f"{PREFIX}API_KEY"  # no setting: what a client of HTTP says who it is with

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Loaded(Generic[S]):
    """A process's settings, how it logs, and where each value came from ('router.port': 'flag')."""

    settings: S
    log: LogSettings
    sources: Mapping[str, str]


@dataclass(frozen=True)
class SettingFault:
    """Something wrong with what was set: in which file or variable (`source`), and what was probably meant (`near`).

    `place` is the setting ('router.gpu_queue_size'), the table, or '' where the whole source is wrong.
    """

    message: str
    source: str
    place: str = ""
    near: str = ""


@dataclass(frozen=True)
class Examined:
    """All sections, with defaults in place of what is wrong; where each value came from; everything wrong."""

    sections: Mapping[str, Section]
    sources: Mapping[str, str]
    faults: Sequence[SettingFault]


Values: TypeAlias = dict[str, dict[str, tuple[Any, str]]]


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
    given: dict[str, dict[str, Any]] = {section.SECTION: {}, LogSettings.SECTION: {}}
    given[section.SECTION] |= flags or {}
    given[LogSettings.SECTION] |= log_flags or {}
    examined = examine_settings(env, given)
    if examined.faults:
        raise SettingsError(examined.faults[0].message)
    settings, log = examined.sections[section.SECTION], examined.sections[LogSettings.SECTION]
    assert isinstance(settings, section)
    assert isinstance(log, LogSettings)
    own = tuple(f"{name}." for name in (section.SECTION, LogSettings.SECTION))
    return Loaded(settings, log, {name: source for name, source in examined.sources.items() if name.startswith(own)})


def examine_settings(env: Mapping[str, str], flags: Mapping[str, Mapping[str, Any]]) -> Examined:
    """What is set, in all sections, and everything that is wrong with it, in the order in which it is read."""
    values: Values = {name: {} for name in SECTIONS}
    faults = [*_read_file(env, values), *_read_environment(env, values)]
    for name, given in flags.items():
        prefix = "log-" if name == LogSettings.SECTION else ""  # as every command calls those
        for key, value in given.items():
            if value is not None:
                values[name][key] = (value, f"--{prefix}{key.replace('_', '-')}")
    sections = {name: _build(SECTIONS[name], found, faults) for name, found in values.items()}
    wrong = {fault.place for fault in faults}  # for which defaults stand
    sources = {
        f"{name}.{key}": "default"
        if wrong & {name, f"{name}.{key}"} or key not in values[name]
        else values[name][key][1]
        for name, section in SECTIONS.items()
        for key in section.__struct_fields__
    }
    return Examined(sections, sources, faults)


def _read_file(env: Mapping[str, str], values: Values) -> Iterator[SettingFault]:
    named = env.get(f"{PREFIX}CONFIG", "")
    path = Path(named) if named else DEFAULT_FILE
    if not named and not path.exists():
        return
    try:
        tables = tomllib.loads(path.read_text("utf-8-sig"))  # some editors write a byte order mark
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        yield SettingFault(f"the settings file {path} cannot be read: {error}", str(path))
        return
    for name, table in tables.items():
        if name not in SECTIONS:
            yield _unknown(f"{path}: unknown table [{name}]", str(path), name, name, SECTIONS)
        elif not isinstance(table, dict):
            yield SettingFault(f"{path}: {name} must be a table: [{name}]", str(path), name)
        else:
            known = SECTIONS[name].__struct_fields__
            for key, value in table.items():
                if key in known:
                    values[name][key] = (value, str(path))
                else:
                    where = f"{path}: [{name}] {key}: there is no such setting"
                    yield _unknown(where, str(path), f"{name}.{key}", key, known)


def _read_environment(env: Mapping[str, str], values: Values) -> Iterator[SettingFault]:
    names = {
        f"{PREFIX}{name.upper()}_{key.upper()}": (name, key)
        for name, section in SECTIONS.items()
        for key in section.__struct_fields__
    }
    for variable, (name, key) in OLDER_NAMES.items():
        if env.get(variable, "").strip():
            values[name][key] = (env[variable].strip(), variable)
    for variable in sorted(env):
        if not variable.startswith(PREFIX) or variable in (f"{PREFIX}CONFIG", API_KEY_VARIABLE):
            continue
        if variable in names:
            name, key = names[variable]
            values[name][key] = (env[variable], variable)
        else:
            yield _unknown(f"unknown environment variable {variable}", variable, "", variable, names)


def _build(section: type[Section], found: Mapping[str, tuple[Any, str]], faults: list[SettingFault]) -> Section:
    types = {field.name: field.type for field in msgspec.structs.fields(section)}
    converted = {}
    for key, (value, source) in found.items():
        name = f"{section.SECTION}.{key}"
        try:
            converted[key] = _convert(value, types[key], source, name)
        except SettingsError as error:
            faults.append(SettingFault(error.message, source, name))
    try:
        return section(**converted)
    except ValueError as error:
        sources = ", ".join(sorted({source for _, source in found.values()}))
        faults.append(SettingFault(f"[{section.SECTION}]: {error}", sources, section.SECTION))
        return section()


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


def _unknown(what: str, source: str, place: str, name: str, known: Iterable[str]) -> SettingFault:
    close = difflib.get_close_matches(name, list(known), n=1)
    words = f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"
    return SettingFault(what + words, source, place, close[0] if close else "")
