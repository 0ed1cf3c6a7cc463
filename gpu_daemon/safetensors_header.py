"""Reads what a safetensors file says of itself: 8 bytes of length, then JSON naming each tensor's place.

Reads no tensor and knows nothing of models. A file that is cut, broken or only a git-LFS pointer is
found here in a millisecond instead of in the middle of loading 30 GB.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

LENGTH_BYTES = 8
HEADER_BYTES_MAX = 100_000_000  # the format's own bound
LFS_POINTER = b"version https://git-lfs.github.com"
WEB_PAGE = (b"<!doctype", b"<html", b"<?xml")  # how a refused download begins, in small letters
START_BYTES = 64
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F32": 4, "I32": 4, "U32": 4, "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip


class BadFileError(Exception):
    """A file that cannot be used; the message says what is wrong with it and what to do."""


class Tensor(NamedTuple):
    """One tensor: how its numbers are stored ('BF16'), and how many."""

    dtype: str
    numbers: int


@dataclass(frozen=True)
class Header:
    """The tensors of a file of `size` bytes, by name."""

    tensors: Mapping[str, Tensor]
    size: int

    @property
    def parameters(self) -> int:
        """How many numbers the file holds."""
        return sum(tensor.numbers for tensor in self.tensors.values())

    @property
    def dtypes(self) -> frozenset[str]:
        """How they are stored."""
        return frozenset(tensor.dtype for tensor in self.tensors.values())


def read_header(path: Path) -> Header:
    """The header of a safetensors file. Raises BadFileError for one that is not whole."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(START_BYTES)
            _refuse_substitute(start)
            length = int.from_bytes(start[:LENGTH_BYTES], "little")
            if len(start) < LENGTH_BYTES or not 2 <= length <= min(size - LENGTH_BYTES, HEADER_BYTES_MAX):
                raise BadFileError("is not a safetensors file or has a broken header; download it again")
            file.seek(LENGTH_BYTES)
            text = file.read(length)
    except OSError as error:
        raise BadFileError(f"cannot be read: {error.strerror}") from None
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        tensors = {name: Tensor(str(entry["dtype"]), _numbers(entry)) for name, entry in entries.items()}
        end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise BadFileError("has a broken safetensors header; download it again") from None
    declared = LENGTH_BYTES + length + end
    if size != declared:
        raise BadFileError(f"has {size} bytes where its header declares {declared}; download it again")
    return Header(tensors, size)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises BadFileError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadFileError(f"cannot be read: {error.strerror}") from None
    _refuse_substitute(data[:START_BYTES])
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"is not JSON ({error}); download it again") from None
    if not isinstance(value, dict):
        raise BadFileError("is not a JSON object; download it again")
    return value


def _refuse_substitute(start: bytes) -> None:
    if start.startswith(LFS_POINTER):
        raise BadFileError("is a git-LFS pointer and not the file itself; run `git lfs pull` in the folder")
    if start.lstrip().lower().startswith(WEB_PAGE):
        raise BadFileError("is a web page and not the file itself: the download was refused; log in and repeat it")


def _numbers(entry: Mapping[str, Any]) -> int:
    first, last = entry["data_offsets"]
    shape = entry["shape"]
    if not all(isinstance(value, int) and value >= 0 for value in (first, last, *shape)):
        raise ValueError
    count: int = math.prod(shape)
    if last - first != count * ITEM_BYTES.get(entry["dtype"], (last - first) / max(count, 1)):
        raise ValueError
    return count
