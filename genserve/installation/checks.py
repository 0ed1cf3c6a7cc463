"""What must be so before anything is changed on a host: every fault at once, each with what to do.

Looks and reports; changes nothing.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from common.errors import GenServeError, SettingsError
from common.settings import DEFAULT_FILE, GpuDaemonSettings, RouterSettings, load_settings
from genserve.installation.carry import run
from genserve.installation.systemd import running_units
from genserve.parts import listening, need_engine_packages

SYSTEMD_RUNS = Path("/run/systemd/system")  # sd_booted(3)
SYSTEMD_VERSION_MIN = 252
NOBODY = 65534  # stands for the service users, which may not be there yet
# What the units do not see: homes, and what is temporary
HIDDEN = ("/home", str(Path("~root").expanduser()), "/run/user", "/tmp", "/var/tmp")  # noqa: S108  # none is written to
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._+/-]+")
MOVE = "make the environment elsewhere: python3 -m venv /opt/genserve, and install GenServe into it"


def need_root(command: Path, words: str) -> Iterator[str]:
    """Only root may do this."""
    if os.geteuid() != 0:
        yield f"only root can do this: sudo {command} {words}"


def need_systemd() -> Iterator[str]:
    """This machine is one that systemd runs, and not an old one."""
    if not SYSTEMD_RUNS.is_dir():
        yield "systemd does not run this machine: `genserve up` serves without it, for as long as a person is there"
        return
    said = run(("systemctl", "--version"))
    found = re.match(r"systemd (\d+)", said)
    if not found or int(found[1]) < SYSTEMD_VERSION_MIN:
        version = found[1] if found else said.strip()
        yield f"the units need systemd {SYSTEMD_VERSION_MIN} or newer and this is {version}: use a newer distribution"


def need_environment(command: Path) -> Iterator[str]:
    """The service users can run what the units will start."""
    if not _PLAIN_PATH.fullmatch(str(command)):
        yield f"the environment's path {command} has characters that a unit cannot hold: {MOVE}"
    elif hidden := next((top for top in HIDDEN if command.resolve().is_relative_to(top)), None):
        yield f"{command} lies in {hidden}, which the services do not see: {MOVE}"
    elif unseen := next(_hidden_parts(command), None):
        yield (
            f"{unseen[0]} is part of this environment and lies in {unseen[1]}, which the services do not see: make the "
            "environment with the system's own Python: /usr/bin/python3 -m venv /opt/genserve, and install GenServe "
            "into it, not editable"
        )
    elif os.geteuid() == 0 and (why := _refused_to_nobody(command)):
        yield f"the service users cannot run {command} ({why}): {MOVE}, or `chmod a+rX` what they may not read"


def need_settings() -> Iterator[str]:
    """The file that is there is understood by this version, and its engine's packages are installed."""
    try:
        daemon = load_settings(GpuDaemonSettings, env={}).settings
        need_engine_packages(daemon.engine)
    except SettingsError as error:
        yield error.message


def need_free_ports() -> Iterator[str]:
    """Nobody else listens where the router will."""
    if running_units():
        return  # it is they
    try:
        router = load_settings(RouterSettings, env={}).settings
    except SettingsError:
        return  # told by need_settings
    addresses = {
        "router.client_endpoint": router.client_endpoint.removeprefix("tcp://"),
        "router.worker_endpoint": router.worker_endpoint.removeprefix("tcp://"),
    }
    yield from need_free(addresses)


def need_free(addresses: Mapping[str, str]) -> Iterator[str]:
    """Nobody listens at these: HOST:PORT by the setting that names it."""
    for setting, address in addresses.items():
        host, _, port = address.rpartition(":")
        try:
            listening(host, int(port)).close()
        except OSError as error:
            yield (
                f"{address} cannot be listened on ({error.strerror}): stop what does (a `genserve up`?), or set "
                f"{setting} in {DEFAULT_FILE}"
            )


def told(check: Callable[[], object]) -> Iterator[str]:
    """What a check that raises has to say."""
    try:
        check()
    except GenServeError as error:
        yield error.message


def _hidden_parts(command: Path) -> Iterator[tuple[Path, str]]:
    """Of what `command` runs by, what lies where the services do not see it, and where that is.

    The Python that an environment was made with may lie in a home (pyenv, uv), and so may what was installed editable.
    """
    own = command.parent == Path(sys.executable).parent
    for part in [(command.parent / "python3").resolve(), *(Path(entry) for entry in sys.path if own and entry)]:
        yield from ((part, top) for top in HIDDEN if part.is_relative_to(top))


def _refused_to_nobody(command: Path) -> str:
    try:
        done = subprocess.run(  # noqa: S603  # the command of this environment
            [str(command), "--version"],
            user=NOBODY,
            group=NOBODY,
            extra_groups=(),
            cwd="/",
            env={"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it ends at once"])[-1]
