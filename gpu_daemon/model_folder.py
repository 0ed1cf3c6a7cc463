"""The model folder that a daemon serves, and its card: known before torch is loaded.

Imports no torch. Nothing is ever fetched and nothing in the folder is run. Without a path the model
that ships inside the package is served.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from common.errors import GenServeError, SettingsError
from common.models import ModelCard
from common.settings import GpuDaemonSettings
from gpu_daemon.engine.backend import FORMATS
from gpu_daemon.model_check import Checked, check_folder
from gpu_daemon.safetensors_header import BadFileError, read_json

EMBEDDED = Path(__file__).parent / "models" / "genserve-shapes"
CARD_FILE = "genserve_model.json"  # in the folder, optional: fields of ModelCard that differ from the usual
CARD_FIELDS = frozenset(ModelCard.__struct_fields__) - {"embedded", "edits", "formats"}  # not the folder's to say
PROMPT_TOKENS_MAX = 512  # FluxPipeline takes no more
VAE_LEVELS_MAX = 8
VAE_LEVELS = 4  # of the real FLUX: one latent pixel is 8 by 8 pixels
FAULTS_SHOWN_MAX = 20


@dataclass(frozen=True)
class ModelFolder:
    """A folder that passed every check. `parameters`: how many numbers its weights hold."""

    path: Path
    card: ModelCard
    parameters: int


def open_model(settings: GpuDaemonSettings) -> ModelFolder:
    """Check the folder that the settings name, and read its card.

    Raises GenServeError model_load_failed naming every fault found, one a line; SettingsError for a
    model_name that cannot be one.
    """
    embedded = not settings.model_path
    path = EMBEDDED if embedded else Path(settings.model_path).expanduser().absolute()
    checked = check_folder(path)
    card = None
    if not checked.faults:
        card = _read_card(path, checked, settings.model_name)
    if checked.faults or card is None:
        raise GenServeError("model_load_failed", _describe(path, checked.faults))
    return ModelFolder(path, msgspec.structs.replace(card, embedded=embedded), checked.parameters)


def model_name(path: Path) -> str:
    """A folder's name as clients write it: FLUX.1-dev is flux1-dev; of a Hugging Face cache, the repository's."""
    name = path.name
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        name = path.parent.parent.name.rpartition("--")[2]
    slug = re.sub(r"[^a-z0-9_-]+", "-", name.lower().replace(".", "")).strip("-_")
    return slug[:128] or "flux"


def _read_card(path: Path, checked: Checked, name: str) -> ModelCard | None:
    usual = _usual_card(path, checked)
    if usual is None:
        return None
    try:
        given = read_json(path / CARD_FILE) if (path / CARD_FILE).exists() else {}
    except BadFileError as error:
        checked.faults.append(f"{CARD_FILE} {error}")
        return None
    unknown = sorted(set(given) - CARD_FIELDS)
    if unknown:
        checked.faults.append(f"{CARD_FILE} has no field {unknown[0]!r}; there are {', '.join(sorted(CARD_FIELDS))}")
    if name:
        given["name"] = name
    try:
        card = msgspec.convert(msgspec.to_builtins(usual) | given, ModelCard)
    except msgspec.ValidationError as error:
        if name and "`$.name`" in str(error):
            raise SettingsError(f"gpu_daemon.model_name = {name!r} is not right: {error}") from None
        checked.faults.append(f"{CARD_FILE} does not fit: {error}")
        return None
    checked.faults += _card_faults(card, usual)
    return card


def _usual_card(path: Path, checked: Checked) -> ModelCard | None:
    """What a FLUX folder draws when it says nothing else; None where its configs do not tell."""
    guided = checked.configs["transformer"].get("guidance_embeds", False)
    levels = checked.configs["vae"].get("block_out_channels", [0] * VAE_LEVELS)
    if not isinstance(guided, bool):
        checked.faults.append("transformer/config.json: guidance_embeds must be true or false")
    if not (isinstance(levels, list) and 1 <= len(levels) <= VAE_LEVELS_MAX):
        checked.faults.append("vae/config.json: block_out_channels must be a list of one number a level")
    if checked.faults:
        return None
    return ModelCard(
        name=model_name(path),
        width=1024,
        height=1024,
        side_min=256,
        side_max=2048,
        side_multiple=2 ** len(levels),  # the VAE's scale, times two: latents are packed two by two
        pixels_max=4_194_304,
        steps=28 if guided else 4,
        guided=guided,
        guidance_scale=3.5,
        prompt_tokens_max=PROMPT_TOKENS_MAX if guided else PROMPT_TOKENS_MAX // 2,
        edits=True,
        formats=FORMATS,
    )


def _card_faults(card: ModelCard, usual: ModelCard) -> list[str]:
    faults = []
    if card.side_multiple % usual.side_multiple:
        faults.append(f"{CARD_FILE}: side_multiple must be a multiple of {usual.side_multiple}")
    if not card.is_native(card.width, card.height):
        faults.append(
            f"{CARD_FILE}: the default size {card.width}x{card.height} is not one that its other fields allow"
        )
    if not 1 <= card.prompt_tokens_max <= PROMPT_TOKENS_MAX:
        faults.append(f"{CARD_FILE}: prompt_tokens_max must be 1 to {PROMPT_TOKENS_MAX}")
    if card.steps > card.steps_max:
        faults.append(f"{CARD_FILE}: steps is more than steps_max")
    if card.guided != usual.guided:
        faults.append(f"{CARD_FILE}: guided must be {str(usual.guided).lower()}, as transformer/config.json has it")
    return faults


def _describe(path: Path, faults: list[str]) -> str:
    shown = [f"\n  - {fault}" for fault in faults[:FAULTS_SHOWN_MAX]]
    more = len(faults) - len(shown)
    return f"the model folder {path} cannot be served:" + "".join(shown) + (f"\n  - and {more} more" if more else "")
