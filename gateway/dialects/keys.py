"""Idempotency-Key: from the header of a request to the keys and the seed of its jobs, and back in its refusals.

Pure. The same key and body at the same endpoint is the same request, whatever the router has made of it since;
other endpoints' keys are others. A request without the header has no key here: the link makes one up.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256

from msgspec import Struct

from common.errors import GenServeError
from gateway.dialects.body import Body, said, show

HEADER = "Idempotency-Key"
KEY_CHARS_MAX = 112  # with an endpoint before it and a number behind it, it is a key of the router: 128
RANDOM_SEEDS = 2**32  # seeds drawn here are below this: easy to write down


class RequestKey(Struct, frozen=True, kw_only=True):
    """A client's own name for one request, and the digest of its body."""

    endpoint: str
    name: str
    digest: str

    def of_job(self, index: int) -> str:
        """The router's key of the request's job number `index`."""
        return f"{self.endpoint}:{self.name}/{index}"

    @property
    def seed(self) -> int:
        """The seed of a request that names none: by chance, and the same each time the request is repeated."""
        return int.from_bytes(sha256(f"{self.endpoint}:{self.name}".encode()).digest()[:8]) % RANDOM_SEEDS


def read_key(given: Sequence[str], endpoint: str, request: Body, files: bytes = b"") -> RequestKey | None:
    """The key of a request, from all values of its header. Raises GenServeError invalid_request.

    The body's digest is of what it says: order, white space and defaults written out make no other body. `files` is
    a digest of the files that come with it.
    """
    if not given:
        return None
    name = given[0]
    if len(given) > 1:
        raise GenServeError("invalid_request", f"{HEADER} stands twice; send one", param=HEADER)
    if not 1 <= len(name) <= KEY_CHARS_MAX or not all(" " <= letter <= "~" for letter in name):
        raise GenServeError(
            "invalid_request",
            f"{HEADER} = {show(name)} is not right: it must be 1 to {KEY_CHARS_MAX} printable ASCII characters",
            param=HEADER,
        )
    return RequestKey(endpoint=endpoint, name=name, digest=sha256(said(request) + files).hexdigest())


@contextmanager
def told_as_header(key: RequestKey | None) -> Iterator[None]:
    """What the router says of a job's key is said of the header that it was made from."""
    try:
        yield
    except GenServeError as error:
        if key is not None and error.param == "key":
            error.param = HEADER
            if error.code == "key_conflict":
                error.message = f"{HEADER} {show(key.name)} was sent before, with another body"
        raise
