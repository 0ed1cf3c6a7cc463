"""The unit files that GenServe ships, made to fit the environment that runs this.

They lie in the top-level folder `systemd` of a checkout, and in `genserve/systemd` of an installed wheel.
"""

import sysconfig
from collections.abc import Mapping
from pathlib import Path

from common.errors import SettingsError

COMMAND_PLACE = "@GENSERVE@"  # stands in the units for the path of the command
HTTP_PLACE = "@HTTP@"  # for the address and port of HTTP
_HERE = Path(__file__).resolve().parents
FOLDERS = (_HERE[1] / "systemd", _HERE[2] / "systemd")
SUFFIXES = (".service", ".socket", ".target", ".slice", ".conf")


def command() -> Path:
    """The `genserve` of the environment that runs this."""
    return Path(sysconfig.get_path("scripts")) / "genserve"


def shipped() -> Mapping[str, str]:
    """The text of each file by its name, as shipped. Raises SettingsError where the package lacks them."""
    for folder in FOLDERS:
        if files := {path.name: path.read_text("utf-8") for path in folder.glob("*") if path.suffix in SUFFIXES}:
            return files
    raise SettingsError(f"this installation of GenServe lacks its unit files ({FOLDERS[0]}): install the wheel again")


def rendered(command_: Path, http: str) -> Mapping[str, str]:
    """The same with `command_` as what they run, and `http` as where HTTP is listened on."""
    places = {COMMAND_PLACE: str(command_), HTTP_PLACE: http}
    texts = dict(shipped())
    for place, value in places.items():
        texts = {name: text.replace(place, value) for name, text in texts.items()}
    return texts
