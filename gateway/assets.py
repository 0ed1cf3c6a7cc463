"""The page's files, read once: each with its type, its tag and a compressed copy. Knows no HTTP.

They are served below an address that holds a digest of them all (`of_page().digest`), so that a browser may keep them
for good: another version of the page has another address.
"""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

INDEX = "index.html"
HERE = "%HERE%"  # in the index: where the other files are
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. `tag` differs wherever `data` does."""

    data: bytes
    packed: bytes  # by gzip
    type: str
    tag: str


@dataclass(frozen=True, slots=True)
class Assets:
    """The index, and the others by name."""

    index: Asset
    files: dict[str, Asset]
    digest: str


@cache
def of_page() -> Assets:
    """The files of gateway/page."""
    folder = Path(__file__).with_name("page")
    files = {path.name: _asset(path.read_bytes(), path.suffix) for path in folder.iterdir() if path.suffix in TYPES}
    digest = hashlib.sha256("".join(f"{name} {files[name].tag}\n" for name in sorted(files)).encode()).hexdigest()[:16]
    index = files.pop(INDEX).data.replace(HERE.encode(), f"page/{digest}".encode())
    return Assets(_asset(index, ".html"), files, digest)


def _asset(data: bytes, suffix: str) -> Asset:
    return Asset(data, gzip.compress(data, mtime=0), TYPES[suffix], hashlib.sha256(data).hexdigest()[:32])
