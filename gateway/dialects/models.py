"""Models in OpenAI's list shape, and which model a client's name for it means.

Pure. A known model wins over an alias; what no list knows is passed on, so that the router's refusal lists
what there is.
"""

from collections.abc import Sequence

from msgspec import Struct, field

from common.errors import GenServeError
from common.messages import ModelView, StatusReply
from common.models import ModelCard
from common.settings import GatewaySettings
from gateway.dialects.body import show

_SHAPES = ((1, 1), (5, 4), (4, 5), (4, 3), (3, 4), (3, 2), (2, 3), (16, 9), (9, 16), (2, 1), (1, 2))


class CardFacts(Struct, frozen=True, kw_only=True):
    """What GenServe knows of a model beyond OpenAI's fields. Sides in pixels, areas in pixels."""

    description: str
    embedded: bool
    default: bool  # drawn by requests that name no model
    workers: int  # GPU daemons that serve it now
    aliases: tuple[str, ...]
    default_size: str
    native_sizes: tuple[str, ...]  # of about the default area, one a common shape
    side_min: int
    side_max: int
    side_multiple: int
    pixels_max: int
    enlarged_side_max: int | None  # None: larger sizes are refused, not enlarged
    steps: int
    steps_max: int
    guidance_scale: float | None  # None: the model takes none
    prompt_tokens_max: int
    edits: bool  # starts from pictures: POST /v1/images/edits
    formats: tuple[str, ...]  # that output_format may ask for


class ModelItem(Struct, frozen=True, kw_only=True):
    """One model. `created` is 0: a model folder does not say when it was made."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "genserve"
    genserve: CardFacts


class ModelList(Struct, frozen=True, kw_only=True):
    """All models ever registered, those that nobody serves just now included."""

    object: str = "list"
    data: list[ModelItem] = field(default_factory=list)


def model_list(status: StatusReply, settings: GatewaySettings) -> ModelList:
    """Every known model."""
    return ModelList(data=[_item(view, status, settings) for view in status.models])


def model_item(name: str, status: StatusReply, settings: GatewaySettings) -> ModelItem:
    """One model by its name or alias. Raises GenServeError unknown_model with the list."""
    wanted = resolve(name, status.models, settings) or status.default_model
    for view in status.models:
        if view.card.name == wanted:
            return _item(view, status, settings)
    known = ", ".join(view.card.name for view in status.models) or "none yet"
    raise GenServeError("unknown_model", f"there is no model {show(name)}; there are: {known}", param="model")


def may_be_alias(name: str, settings: GatewaySettings) -> bool:
    """Does it take the list of models to say what `name` means?"""
    return _alias(name, settings) is not None or name in settings.embedded_model_aliases


def resolve(name: str, known: Sequence[ModelView], settings: GatewaySettings) -> str:
    """The model that `name` means; '' is the default model."""
    if any(view.card.name == name for view in known):
        return name
    if (meant := _alias(name, settings)) is not None:
        return meant
    if name in settings.embedded_model_aliases and all(view.card.embedded for view in known):
        return ""
    return name


def _alias(name: str, settings: GatewaySettings) -> str | None:
    """What `name` is set to mean: by itself, else by the longest beginning that fits."""
    aliases = settings.model_aliases
    if name in aliases:
        return aliases[name]
    fits = [each for each in aliases if each.endswith("*") and name.startswith(each[:-1])]
    return aliases[max(fits, key=len)] if fits else None


def native_sizes(card: ModelCard) -> tuple[str, ...]:
    """Sizes drawn without enlarging, of about the default area, without repetition."""
    area = card.width * card.height
    sizes = [(card.width, card.height), *(card.nearest_native(w, h, area=area) for w, h in _SHAPES)]
    return tuple(dict.fromkeys(f"{w}x{h}" for w, h in sizes))


def _item(view: ModelView, status: StatusReply, settings: GatewaySettings) -> ModelItem:
    card, default = view.card, view.card.name == status.default_model
    names = (*settings.model_aliases, *settings.embedded_model_aliases)
    meant = {name: resolve(name, status.models, settings) or status.default_model for name in names}
    return ModelItem(
        id=card.name,
        genserve=CardFacts(
            description=card.description,
            embedded=card.embedded,
            default=default,
            workers=view.workers,
            aliases=tuple(name for name, model in meant.items() if model == card.name != name),
            default_size=f"{card.width}x{card.height}",
            native_sizes=native_sizes(card),
            side_min=card.side_min,
            side_max=card.side_max,
            side_multiple=card.side_multiple,
            pixels_max=card.pixels_max,
            enlarged_side_max=card.enlarged_side_max if card.enlarges else None,
            steps=card.steps,
            steps_max=card.steps_max,
            guidance_scale=card.guidance_scale if card.guided else None,
            prompt_tokens_max=card.prompt_tokens_max,
            edits=card.edits,
            formats=card.formats,
        ),
    )
