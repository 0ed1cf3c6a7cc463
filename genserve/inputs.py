"""Files on this machine as the inputs of a job: what is said of them, and their bytes. Decodes nothing."""

import hashlib
from pathlib import Path
from typing import Literal

import typer

from common.errors import GenServeError
from common.messages import INPUT_BYTES_MAX, InputSpec
from common.picture_files import look


def read_inputs(image: Path | None, mask: Path | None) -> tuple[tuple[InputSpec, ...], list[bytes]]:
    """Those that are given. Raises BadParameter for a file that is no picture that could be sent."""
    if mask is not None and image is None:
        raise typer.BadParameter("a mask opens a part of an image: name one with --image", param_hint="--mask")
    told: list[InputSpec] = []
    files: list[bytes] = []
    for path, kind in ((image, "image"), (mask, "mask")):
        if path is not None:
            files.append(_read(path, f"--{kind}"))
            told.append(_describe(files[-1], "image" if kind == "image" else "mask", path))
    return tuple(told), files


def _read(path: Path, flag: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(INPUT_BYTES_MAX + 1)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}", param_hint=flag) from None
    if len(data) > INPUT_BYTES_MAX:
        raise typer.BadParameter(f"{path} has more than {INPUT_BYTES_MAX} bytes", param_hint=flag)
    return data


def _describe(data: bytes, kind: Literal["image", "mask"], path: Path) -> InputSpec:
    try:
        facts = look(data)
    except GenServeError as error:
        raise typer.BadParameter(f"{path}: {error.message}", param_hint=f"--{kind}") from None
    return InputSpec(
        kind=kind,
        format=facts.format,
        width=facts.width,
        height=facts.height,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
