"""OpenAI's images dialect: POST /v1/images/generations.

Pure. What is accepted is done or, where it cannot change the picture, said so in `warnings`; what is
not done is refused with `unsupported`. Extras that OpenAI lacks: seed, num_inference_steps, guidance_scale,
negative_prompt, true_cfg_scale, priority, deadline_s.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct

from common.errors import GenServeError
from common.messages import SEED_MAX, SIDE_MAX, JobSpec, Note
from gateway.dialects import body
from gateway.dialects.body import show
from gateway.dialects.picture import Drawn, PictureFacts, picture_facts

N_MAX = 10
PARAMS = {"steps": "num_inference_steps", "width": "size", "height": "size"}  # JobSpec's name: this dialect's
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")

# field: (values that ask for nothing special, documented values that change nothing here, those refused)
_CHOICES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "quality": (("auto", "standard"), ("low", "medium", "high", "hd"), ()),
    "style": ((), ("vivid", "natural"), ()),
    "moderation": (("auto", "low"), (), ()),
    "background": (("auto", "opaque"), (), ("transparent",)),
    "response_format": (("b64_json",), (), ("url",)),
    "output_format": (("png",), (), ("jpeg", "webp")),
}

SIZE_SCHEMA = {"pattern": "^(auto|[0-9]{1,5}x[0-9]{1,5})$"}
PROMPT_SCHEMA = {"pattern": r"\S"}  # not blank
SCHEMAS: dict[str, dict[str, Any]] = {  # what the types of ImagesRequest do not say of its fields
    "prompt": PROMPT_SCHEMA,
    "size": SIZE_SCHEMA,
    **{name: {"enum": [*plain, *harmless]} for name, (plain, harmless, _) in _CHOICES.items()},
}


class ImagesRequest(body.Body, frozen=True, kw_only=True):
    """The body of POST /v1/images/generations."""

    prompt: body.Prompt
    model: body.ModelName = ""
    n: Annotated[int, Meta(ge=1, le=N_MAX)] = 1
    size: str = "auto"
    quality: str = "auto"
    style: str | None = None
    moderation: str = "auto"
    background: str = "auto"
    response_format: str = "b64_json"
    output_format: str = "png"
    output_compression: Annotated[int, Meta(ge=0, le=100)] = 100
    stream: bool = False
    partial_images: Annotated[int, Meta(ge=0, le=3)] = 0
    user: str = ""
    seed: body.Seed | None = None
    num_inference_steps: body.Steps | None = None
    guidance_scale: body.Guidance | None = None
    negative_prompt: body.NegativePrompt = ""
    true_cfg_scale: body.TrueCfg | None = None
    priority: body.Priority = 0
    deadline_s: body.Deadline | None = None


class Warned(Struct, frozen=True, kw_only=True):
    """Something worth knowing although nothing failed."""

    code: str
    message: str


class ImageItem(Struct, frozen=True, kw_only=True):
    """One picture; its bytes become base64 when the response is encoded."""

    b64_json: bytes
    genserve: PictureFacts


class ImagesResponse(Struct, frozen=True, kw_only=True):
    """The answer. All pictures of one request are of one model and one size."""

    created: int
    data: list[ImageItem]
    size: str
    output_format: str
    background: str = "opaque"  # PNG without an alpha channel
    quality: str = "auto"
    model: str
    warnings: list[Warned]


def read_request(data: bytes) -> ImagesRequest:
    """The checked request. Raises GenServeError invalid_request or unsupported; `param` names the field."""
    request = body.read(data, ImagesRequest)
    body.not_blank("prompt", request.prompt)
    for name in _CHOICES:
        _check_choice(name, getattr(request, name))
    for name, value, only in (
        ("stream", request.stream, False),
        ("partial_images", request.partial_images, 0),
        ("output_compression", request.output_compression, 100),
    ):
        if value != only:
            raise GenServeError("unsupported", f"{name} = {value!r} is not done here; leave it out", param=name)
    parse_size(request.size)
    if request.seed is not None and request.seed + request.n - 1 > SEED_MAX:
        raise GenServeError(
            "invalid_request", f"the pictures' seeds, seed to seed + n - 1, would pass {SEED_MAX}", param="seed"
        )
    return request


def to_jobs(request: ImagesRequest, *, model: str, client: str, random_seed: int) -> list[JobSpec]:
    """One job a picture, with seeds s, s+1, …; `random_seed` is s where the request names none."""
    width, height = parse_size(request.size)
    first = random_seed if request.seed is None else request.seed
    return [
        JobSpec(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            model=model,
            width=width,
            height=height,
            steps=request.num_inference_steps or 0,
            guidance_scale=request.guidance_scale,
            true_cfg_scale=request.true_cfg_scale,
            seed=first + index,
            priority=request.priority,
            client=client,
            deadline_s=request.deadline_s,
        )
        for index in range(request.n)
    ]


def to_response(request: ImagesRequest, drawn: Sequence[Drawn], *, created: int) -> ImagesResponse:
    """The answer for the pictures of one request, in the order of their seeds."""
    first = drawn[0]
    notes = dict.fromkeys((note.code, note.message) for each in drawn for note in each.job.notes)
    own = [(note.code, note.message) for note in _own_notes(request)]
    return ImagesResponse(
        created=created,
        data=[ImageItem(b64_json=each.data, genserve=picture_facts(each.job, each.picture)) for each in drawn],
        size=f"{first.picture.width}x{first.picture.height}",
        output_format=first.picture.format,
        model=first.job.model,
        warnings=[Warned(code=code, message=message) for code, message in (*own, *notes)],
    )


def parse_size(size: str) -> tuple[int, int]:
    """(width, height) in pixels; (0, 0) for 'auto'. Raises GenServeError invalid_request."""
    if size == "auto":
        return 0, 0
    match = _SIZE.fullmatch(size)
    if match is None:
        raise GenServeError(
            "invalid_request",
            f"size = {show(size)} is not right: say 'auto' or WIDTHxHEIGHT, e.g. 1024x1024",
            param="size",
        )
    width, height = int(match[1]), int(match[2])
    if not (1 <= width <= SIDE_MAX and 1 <= height <= SIDE_MAX):
        raise GenServeError(
            "invalid_request", f"size = {show(size)} is not right: sides are 1 to {SIDE_MAX} pixels", param="size"
        )
    return width, height


def _check_choice(name: str, value: str | None) -> None:
    plain, harmless, refused = _CHOICES[name]
    if value is None or value in plain or value in harmless:
        return
    allowed = ", ".join(repr(choice) for choice in (*plain, *harmless))
    if value in refused:
        raise GenServeError("unsupported", f"{name} = {value!r} is not done here; there is {allowed}", param=name)
    raise GenServeError("invalid_request", f"{name} = {show(value)} is not right: say {allowed}", param=name)


def _own_notes(request: ImagesRequest) -> list[Note]:
    """One for each accepted value that cannot change the picture."""
    return [
        Note(code=f"{name}_has_no_effect", message=f"{name} = {value!r} changes nothing here; {instead}")
        for name, value, instead in (
            ("quality", request.quality, "more num_inference_steps take longer and may look better"),
            ("style", request.style, "say it in the prompt"),
        )
        if value in _CHOICES[name][1]
    ]
