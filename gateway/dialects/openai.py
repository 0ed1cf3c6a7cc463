"""OpenAI's images dialect: POST /v1/images/generations and /v1/images/edits, from request to jobs to answer.

Pure. What is accepted is done or, where it cannot change the picture, said so in `warnings`; what is not done is
refused with `unsupported`. Extras that OpenAI lacks: seed, num_inference_steps, guidance_scale, negative_prompt,
true_cfg_scale, priority, deadline_s; for edits strength.
"""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from common.errors import GenServeError
from common.messages import SEED_MAX, SIDE_MAX, Format, JobSpec, Note
from gateway.dialects import body
from gateway.dialects.body import show
from gateway.dialects.inputs import NO_INPUTS, Inputs, read_files
from gateway.dialects.multipart import Form
from gateway.dialects.picture import Drawn, PictureFacts, picture_facts

N_MAX = 10
PARAMS = {  # JobSpec's name: this dialect's
    "steps": "num_inference_steps", "width": "size", "height": "size", "format": "output_format",
    "quality": "output_compression", "previews": "partial_images", "inputs": "image",
}  # fmt: skip
_SIZE = re.compile(r"([0-9]{1,6})x([0-9]{1,6})")

# field: (values that ask for nothing special, documented values that change nothing here, those refused)
_CHOICES: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "quality": (("auto", "standard"), ("low", "medium", "high", "xhigh", "max", "hd"), ()),
    "style": ((), ("vivid", "natural"), ()),
    "moderation": (("auto", "low"), (), ()),
    "background": (("auto", "opaque"), (), ("transparent",)),
    "response_format": (("b64_json", "url"), (), ()),
    "output_format": (("png", "jpeg", "webp"), (), ("gif", "svg")),
    "input_fidelity": ((), ("low", "high"), ()),
    "complexity": ((), ("low", "medium", "high"), ()),
}
_INSTEAD = {  # what to do where a value of this field changes nothing
    "quality": "more num_inference_steps take longer and may look better",
    "style": "say it in the prompt",
    "input_fidelity": "a smaller strength stays nearer to the image",
    "complexity": "more num_inference_steps take longer and may look better",
}

SIZE_SCHEMA = {"pattern": "^(auto|[0-9]{1,5}x[0-9]{1,5})$"}
PROMPT_SCHEMA = {"pattern": r"\S"}  # not blank
SCHEMAS: dict[str, dict[str, Any]] = {  # what the types of ImagesRequest do not say of its fields
    "prompt": PROMPT_SCHEMA,
    "size": SIZE_SCHEMA,
    **{name: {"enum": [*plain, *harmless]} for name, (plain, harmless, _) in _CHOICES.items()},
}


class Asked(body.Body, frozen=True, kw_only=True):
    """What generations and edits have in common."""

    prompt: body.Prompt
    model: body.ModelName = ""
    n: Annotated[int, Meta(ge=1, le=N_MAX)] = 1
    size: str = "auto"
    quality: str = "auto"
    complexity: str | None = None
    background: str = "auto"
    response_format: str = "b64_json"
    output_format: str = "png"
    output_compression: body.Compression | None = None
    stream: bool = False
    partial_images: Annotated[int, Meta(ge=0, le=3)] = 0
    user: str = ""
    safety_identifier: str = ""
    seed: body.Seed | None = None
    num_inference_steps: body.Steps | None = None
    guidance_scale: body.Guidance | None = None
    negative_prompt: body.NegativePrompt = ""
    true_cfg_scale: body.TrueCfg | None = None
    priority: body.Priority = 0
    deadline_s: body.Deadline | None = None


class ImagesRequest(Asked, frozen=True, kw_only=True):
    """The body of POST /v1/images/generations."""

    style: str | None = None
    moderation: str = "auto"


class EditsRequest(Asked, frozen=True, kw_only=True):
    """The text fields of POST /v1/images/edits; the files stand beside them: image, and mask."""

    input_fidelity: str | None = None
    moderation: str = "auto"
    strength: body.Strength | None = None


class Warned(Struct, frozen=True, kw_only=True):
    """Something worth knowing although nothing failed."""

    code: str
    message: str


class ImageItem(Struct, frozen=True, kw_only=True):
    """One picture, or the link to it; bytes become base64 when the response is encoded."""

    b64_json: bytes | UnsetType = UNSET
    url: str | UnsetType = UNSET
    genserve: PictureFacts


class ImagesResponse(Struct, frozen=True, kw_only=True):
    """The answer. All pictures of one request are of one model and one size."""

    created: int
    data: list[ImageItem]
    size: str
    output_format: str
    background: str = "opaque"  # no alpha channel
    quality: str = "auto"
    model: str
    warnings: list[Warned]


def read_request(data: bytes) -> ImagesRequest:
    """The checked request. Raises GenServeError invalid_request or unsupported; `param` names the field."""
    request = body.read(data, ImagesRequest)
    _check(request)
    return request


def read_edit(form: Form) -> tuple[EditsRequest, Inputs]:
    """The checked form and its files. Raises as `read_request` does."""
    request = body.read_form(form.fields, EditsRequest)
    _check(request)
    return request, read_files(form)


def to_jobs(request: Asked, *, model: str, client: str, random_seed: int, inputs: Inputs = NO_INPUTS) -> list[JobSpec]:
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
            format=output_format(request.output_format),
            quality=output_quality(request.output_format, request.output_compression),
            previews=request.partial_images,
            inputs=inputs.specs,
            strength=request.strength if isinstance(request, EditsRequest) else None,
        )
        for index in range(request.n)
    ]


def to_response(
    request: Asked, drawn: Sequence[Drawn], *, created: int, link_of: Callable[[str], str]
) -> ImagesResponse:
    """The answer for the pictures of one request, in the order of their seeds. `link_of` a job's id is its URL."""
    first = drawn[0]
    notes = dict.fromkeys((note.code, note.message) for each in drawn for note in each.job.notes)
    own = [(note.code, note.message) for note in _own_notes(request)]
    linked = request.response_format == "url"
    return ImagesResponse(
        created=created,
        data=[
            ImageItem(
                b64_json=UNSET if linked else each.data,
                url=link_of(each.job.job_id) if linked else UNSET,
                genserve=picture_facts(each.job, each.picture),
            )
            for each in drawn
        ],
        size=f"{first.picture.width}x{first.picture.height}",
        output_format=first.picture.format,
        model=first.job.model,
        warnings=[Warned(code=code, message=message) for code, message in (*own, *notes)],
    )


def output_format(name: str) -> Format:
    """The same as a job names it; it was checked before."""
    return "jpeg" if name == "jpeg" else "webp" if name == "webp" else "png"


def output_quality(name: str, compression: int | None) -> int | None:
    """The quality of that format as a job says it."""
    return None if compression is None or name == "png" else max(1, compression)


def check_output(name: str, compression: int | None) -> None:
    """Raise GenServeError invalid_request or unsupported for a format, or its compression, that there is not."""
    _check_choice("output_format", name)
    if compression not in (None, 100) and name == "png":
        text = "output_compression is for output_format 'jpeg' or 'webp'; a png loses nothing"
        raise GenServeError("invalid_request", text, param="output_compression")


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


def _check(request: Asked) -> None:
    body.not_blank("prompt", request.prompt)
    for name in _CHOICES:
        if hasattr(request, name):
            _check_choice(name, getattr(request, name))
    check_output(request.output_format, request.output_compression)
    if request.partial_images and not request.stream:
        raise GenServeError("invalid_request", "partial_images come only with stream: true", param="partial_images")
    if request.stream and request.response_format == "url":
        text = "response_format = 'url' goes without stream: the events hold the pictures themselves"
        raise GenServeError("invalid_request", text, param="response_format")
    parse_size(request.size)
    if request.seed is not None and request.seed + request.n - 1 > SEED_MAX:
        raise GenServeError(
            "invalid_request", f"the pictures' seeds, seed to seed + n - 1, would pass {SEED_MAX}", param="seed"
        )


def _check_choice(name: str, value: str | None) -> None:
    plain, harmless, refused = _CHOICES[name]
    if value is None or value in plain or value in harmless:
        return
    allowed = ", ".join(repr(choice) for choice in (*plain, *harmless))
    if value in refused:
        raise GenServeError("unsupported", f"{name} = {value!r} is not done here; there is {allowed}", param=name)
    raise GenServeError("invalid_request", f"{name} = {show(value)} is not right: say {allowed}", param=name)


def _own_notes(request: Asked) -> list[Note]:
    """One for each accepted value that cannot change the picture."""
    return [
        Note(code=f"{name}_has_no_effect", message=f"{name} = {value!r} changes nothing here; {instead}")
        for name, instead in _INSTEAD.items()
        if (value := getattr(request, name, None)) in _CHOICES[name][1]
    ]
