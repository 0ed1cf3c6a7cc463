"""Picture files that a client sends: looked at before anything decodes them, and said as the inputs of a job.

Pure. Of a file a few bytes are read: what it is, and how large it is shown. Anything but PNG, JPEG and WebP is refused,
and so is what would be large once it is decoded.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from common.codec import Buffer, split_payload
from common.errors import GenServeError
from common.messages import INPUT_PIXELS_MAX, SIDE_MAX, InputSpec
from common.picture_files import look
from gateway.dialects.multipart import Form

FILES = ("image", "mask")  # fields of a form that are files
_WHICH = re.compile(r"inputs\[(\d)\](:?) ")  # as the router and the engine begin


@dataclass(frozen=True, slots=True)
class Inputs:
    """What is said of the files, their frames, and a digest of them all in their order."""

    specs: tuple[InputSpec, ...] = ()
    payload: Sequence[Buffer] = ()
    digest: bytes = b""


NO_INPUTS = Inputs()


def read_inputs(image: bytes, mask: bytes | None = None, *, names: tuple[str, str] = ("image", "mask")) -> Inputs:
    """The inputs of a job. Raises GenServeError with the field, one of `names`, and what would be right."""
    specs = [_spec("image", image, names[0])]
    files = [image]
    if mask is not None:
        specs.append(_spec("mask", mask, names[1]))
        files.append(mask)
        sizes = [f"{each.width}x{each.height}" for each in specs]
        if len(set(sizes)) > 1:
            text = f"{names[1]} has {sizes[1]} pixels; it must be of the size of {names[0]}: {sizes[0]}"
            raise GenServeError("invalid_request", text, param=names[1])
    payload = [frame for data in files for frame in split_payload(data)]
    told = "".join(f"{each.kind}:{each.sha256}\n" for each in specs)
    return Inputs(tuple(specs), payload, sha256(told.encode()).digest())


def read_files(form: Form) -> Inputs:
    """The `image` of a form, which it must have, and its `mask`. Raises as `read_inputs` does."""
    images, masks = form.files.get("image", []), form.files.get("mask", [])
    if not images:
        raise GenServeError("invalid_request", "image is missing: a PNG, JPEG or WebP file", param="image")
    if len(images) > 1:
        text = f"image: one picture is changed at a time here; there are {len(images)}"
        raise GenServeError("unsupported", text, param="image")
    if len(masks) > 1:
        raise GenServeError("invalid_request", f"mask: one is taken; there are {len(masks)}", param="mask")
    return read_inputs(images[0], masks[0] if masks else None)


@contextmanager
def inputs_named(names: Sequence[str]) -> Iterator[None]:
    """Errors raised inside that are about one of the inputs name its field; `names`: the fields, in their order."""
    try:
        yield
    except GenServeError as error:
        name_input(error, names)
        raise


def name_input(error: GenServeError, names: Sequence[str] = FILES) -> None:
    """Where it is about one of the inputs, have it name the field of that."""
    if (found := _WHICH.match(error.message)) and int(found[1]) < len(names):
        error.param = names[int(found[1])]
        error.message = f"{error.param}{found[2]} {error.message[found.end() :]}"


def _spec(kind: Literal["image", "mask"], data: bytes, name: str) -> InputSpec:
    try:
        facts = look(data)
    except GenServeError as error:
        text = f"{name} is no picture that is taken here: {error.message}; send a PNG, JPEG or WebP file"
        raise GenServeError("invalid_request", text, param=name) from None
    shown = f"{name} has {facts.width}x{facts.height} pixels"
    if facts.width * facts.height > INPUT_PIXELS_MAX or max(facts.width, facts.height) > SIDE_MAX:
        text = f"{shown}; at most {INPUT_PIXELS_MAX} in all are taken, and {SIDE_MAX} a side"
        raise GenServeError("invalid_request", text, param=name)
    return InputSpec(
        kind=kind,
        format=facts.format,
        width=facts.width,
        height=facts.height,
        bytes=len(data),
        sha256=sha256(data).hexdigest(),
    )
