"""What installing, upgrading and removing change on a host: a list of steps, worked out before anything is done.

Pure: what is there is an argument, what is to be done the result. `carry` does it or shows it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from genserve.installation.layout import (
    CONFIG,
    CREDENTIALS,
    DAEMON_KEY,
    GATEWAY,
    GATEWAY_SOCKET,
    GROUP,
    KEPT,
    KEYS,
    ROUTER,
    SETTINGS,
    SETTINGS_NEW,
    SYSUSERS,
    TARGET,
    TMPFILES,
    USERS,
    device_of,
    gpu_unit,
    place_of,
)

OPEN_FILE, OPEN_FOLDER, SECRET_FILE, SECRET_FOLDER = 0o644, 0o755, 0o600, 0o700
LISTEN = "ListenStream="
WHOLE_HOST = frozenset({ROUTER, GATEWAY, GATEWAY_SOCKET})


@dataclass(frozen=True)
class Present:
    """What is at a path now. `data` is None for a folder."""

    mode: int
    data: bytes | None = None


@dataclass(frozen=True)
class Folder:
    """A folder of root's."""

    path: Path
    mode: int
    before: Present | None = None


@dataclass(frozen=True)
class File:
    """A file of root's, written whole or not at all."""

    path: Path
    data: bytes
    mode: int = OPEN_FILE
    before: Present | None = None


@dataclass(frozen=True)
class Kept:
    """Something that stays as it is, and why where that is not plain."""

    path: Path
    why: str = "unchanged"


@dataclass(frozen=True)
class Remove:
    """A file, or a folder with all that is in it."""

    path: Path


@dataclass(frozen=True)
class Run:
    """A command. `may_fail`: what it would undo may not be there."""

    argv: tuple[str, ...]
    may_fail: bool = False


@dataclass(frozen=True)
class Note:
    """Something that the person should know or do."""

    text: str


Step: TypeAlias = Folder | File | Kept | Remove | Run | Note


@dataclass(frozen=True)
class Host:
    """What is on the host: files and folders by path (only those that were asked for), and units that start at boot."""

    present: Mapping[Path, Present]
    enabled: frozenset[str] = frozenset()


def wanted_units(devices: Sequence[str], *, router_elsewhere: bool) -> tuple[str, ...]:
    """The units that start at boot on a host that serves `devices`."""
    own = () if router_elsewhere else (ROUTER, GATEWAY_SOCKET, GATEWAY)
    return (TARGET, *own, *map(gpu_unit, devices))


def paths_read(units: Mapping[str, str]) -> tuple[Path, ...]:
    """What `Host.present` must tell of for the steps below."""
    return (
        *map(place_of, units),
        SYSUSERS,
        TMPFILES,
        CONFIG,
        SETTINGS,
        SETTINGS_NEW,
        KEYS,
        DAEMON_KEY,
        *KEPT,
        *CREDENTIALS,
    )


def installed(units: Mapping[str, str], reference: str, digest_line: str, key: bytes | None, host: Host) -> list[Step]:
    """The files of an installation: units, users, folders, settings, key. `reference`: the settings file anew."""
    files = [_file(place_of(name), text.encode(), host) for name, text in sorted(units.items())]
    steps: list[Step] = [_folder(path, OPEN_FOLDER, host) for path in (SYSUSERS, TMPFILES) if path not in host.present]
    steps += files
    steps += [Run(("systemd-sysusers", str(SYSUSERS / "genserve.conf")))]
    steps += [_folder(CONFIG, OPEN_FOLDER, host), *_settings(reference, digest_line, host)]
    steps += [_folder(KEYS, SECRET_FOLDER, host)]
    if key is not None:
        steps += [_file(DAEMON_KEY, key, host, SECRET_FILE)]
    steps += [Run(("systemd-tmpfiles", "--create", str(TMPFILES / "genserve.conf")))]
    steps += [*_moving(files)]
    return [*steps, Run(("systemctl", "daemon-reload"))]  # always: drop-ins may have changed as well


def switched_on(wanted: Sequence[str], host: Host) -> list[Step]:
    """Units that start at boot from now on, and GPUs that were served before and are not any more."""
    gone = sorted(unit for unit in host.enabled - set(wanted) if device_of(unit))
    steps: list[Step] = [Run(("systemctl", "disable", "--now", unit)) for unit in gone]
    if new := [unit for unit in wanted if unit not in host.enabled]:
        steps += [Run(("systemctl", "enable", *new))]
    return steps


def removed(units: Mapping[str, str], running: Sequence[str], host: Host, *, purge: bool) -> list[Step]:
    """Everything that `installed` and `switched_on` did, undone; what the operator owns only with `purge`."""
    files = [path for path in (*map(place_of, units), *CREDENTIALS) if path in host.present]
    steps: list[Step] = []
    stopped = sorted({*host.enabled, *running})
    if door := [unit for unit in (GATEWAY_SOCKET, GATEWAY) if unit in stopped]:
        steps += [Run(("systemctl", "disable", "--now", *door))]  # first, so that open requests finish
    if rest := [unit for unit in stopped if unit not in door]:
        steps += [Run(("systemctl", "disable", "--now", *rest))]
    steps += [Remove(path) for path in sorted(files)]
    if files:
        steps += [Run(("systemctl", "daemon-reload")), Run(("systemctl", "reset-failed", "genserve*"), may_fail=True)]
    owned = [path for path in KEPT if path in host.present]
    if not purge:
        return steps + [Kept(path, "kept; --purge removes it as well") for path in owned]
    steps += [Remove(path) for path in owned]
    steps += [Run(("userdel", user), may_fail=True) for user in USERS]
    return [*steps, Run(("groupdel", GROUP), may_fail=True)]


def _moving(files: Sequence[Step]) -> list[Step]:
    """What a person should know before HTTP is listened on elsewhere."""
    for step in files:
        if isinstance(step, File) and step.path == place_of(GATEWAY_SOCKET) and step.before and step.before.data:
            then, now = (
                [line for line in text.decode("utf-8", "replace").splitlines() if line.startswith(LISTEN)]
                for text in (step.before.data, step.data)
            )
            if then != now:
                words = f"HTTP moves to {now[0].removeprefix(LISTEN)} when the gateway is restarted"
                return [Note(f"{words}: open requests finish first, and who connects meanwhile is refused")]
    return []


def _settings(reference: str, digest_line: str, host: Host) -> list[Step]:
    """The operator's file is written once and never again; what has changed since lies beside it."""
    there, beside = host.present.get(SETTINGS), host.present.get(SETTINGS_NEW)
    if there is None or there.data is None:
        return [_file(SETTINGS, reference.encode(), host)]
    if digest_line.encode() in there.data:
        told: list[Step] = [Kept(SETTINGS)]
        return [*told, Remove(SETTINGS_NEW)] if beside else told
    new = _file(SETTINGS_NEW, reference.encode(), host)
    note = (
        f"other settings than when {SETTINGS} was made: see diff -u {SETTINGS} {SETTINGS_NEW}, take over what you want"
    )
    return [Kept(SETTINGS, "yours, kept"), new, Note(f"{note}, its last line too")]


def _file(path: Path, data: bytes, host: Host, mode: int = OPEN_FILE) -> Step:
    before = host.present.get(path)
    return Kept(path) if before == Present(mode, data) else File(path, data, mode, before)


def _folder(path: Path, mode: int, host: Host) -> Step:
    before = host.present.get(path)
    return Kept(path) if before == Present(mode) else Folder(path, mode, before)
