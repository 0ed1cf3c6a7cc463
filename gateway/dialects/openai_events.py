"""OpenAI's events of a streamed images request: partial pictures as they form, and each one that is completed.

Pure. `event` and `type` are alike: image_generation.* and image_edit.*. Beside OpenAI's fields each event says in
`genserve` which picture of the request it is about, and of which job.
"""

from typing import Literal, TypeAlias

from msgspec import Struct

from common.messages import JobProgress
from gateway.dialects.openai import Asked
from gateway.dialects.picture import Drawn, PictureFacts, picture_facts

Kind: TypeAlias = Literal["image_generation", "image_edit"]
_QUALITIES = ("low", "medium", "high", "xhigh", "max")


class Whose(Struct, frozen=True, kw_only=True):
    """Which picture a partial one belongs to: `index` of the request, from 0; after `step` of `steps`."""

    index: int
    job_id: str
    step: int
    steps: int


class TokenDetails(Struct, frozen=True, kw_only=True):
    """Of the input."""

    image_tokens: int = 0
    text_tokens: int = 0


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens that are charged: none are."""

    input_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()
    output_tokens: int = 0
    total_tokens: int = 0


class PartialImage(Struct, frozen=True, kw_only=True):
    """What the denoiser believes the picture to be. `output_format` and `size` are those of these bytes."""

    type: str
    b64_json: bytes
    created_at: int
    output_format: str
    partial_image_index: int
    size: str
    quality: str
    background: str = "opaque"
    genserve: Whose


class Completed(Struct, frozen=True, kw_only=True):
    """One picture of the request, complete."""

    type: str
    b64_json: bytes
    created_at: int
    output_format: str
    size: str
    quality: str
    background: str = "opaque"
    usage: Usage = Usage()
    index: int
    genserve: PictureFacts


def partial_image(
    kind: Kind, request: Asked, index: int, progress: JobProgress, data: bytes, *, created_at: int
) -> PartialImage:
    """The event of a preview, the request's picture number `index` from 0."""
    preview = progress.preview
    assert preview is not None
    return PartialImage(
        type=f"{kind}.partial_image",
        b64_json=data,
        created_at=created_at,
        output_format=preview.format,
        partial_image_index=progress.preview_index,
        size=f"{preview.width}x{preview.height}",
        quality=_quality(request),
        genserve=Whose(index=index, job_id=progress.job_id, step=progress.step, steps=progress.steps),
    )


def completed(kind: Kind, request: Asked, index: int, drawn: Drawn, *, created_at: int) -> Completed:
    """The event of a picture that is drawn."""
    return Completed(
        type=f"{kind}.completed",
        b64_json=drawn.data,
        created_at=created_at,
        output_format=drawn.picture.format,
        size=f"{drawn.picture.width}x{drawn.picture.height}",
        quality=_quality(request),
        index=index,
        genserve=picture_facts(drawn.job, drawn.picture),
    )


def _quality(request: Asked) -> str:
    return request.quality if request.quality in _QUALITIES else "auto"
