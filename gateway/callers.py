"""Who asks: one caller a request, by the key that it brings, and what that key may do and have.

Pure. Without keys everyone is one caller, who may do everything, as on a machine of one's own.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from hmac import compare_digest

from msgspec import Struct

from common.errors import GenServeError
from common.http_keys import HttpKey, Right, hash_of, what_is_wrong
from common.messages import Terms
from common.roles import ANYONE, LOCAL_NAME
from gateway.dialects.errors import HttpError

BEARER = "bearer "
HEADERS = ("Authorization", "X-API-Key")
BEGINNING_CHARS = 8  # of a hash, by which it is looked up before it is compared
MAKE_ONE = "send Authorization: Bearer KEY; the operator makes keys with `genserve keys add-http NAME`"


class Caller(Struct, frozen=True, kw_only=True):
    """Who asks, and what it may."""

    owner: str = LOCAL_NAME  # of its jobs
    rights: tuple[Right, ...] = ("admin",)
    key: HttpKey | None = None  # None: no keys are asked for

    @property
    def terms(self) -> Terms | None:
        """What the router holds its jobs to; None: nothing more than everyone."""
        return None if self.key is None else self.key.terms

    @property
    def sees(self) -> str:
        """Whose jobs it may see and cancel, as an owner in a question to the router."""
        return ANYONE if self.key is not None and "admin" in self.rights else self.owner

    def need(self, right: Right) -> None:
        """Raise HttpError 403 where it may not."""
        if right not in self.rights and "admin" not in self.rights:
            assert self.key is not None
            raise HttpError(
                403,
                f"the key {self.key.name!r} may {' and '.join(self.rights)}; this needs the right {right}",
                code="forbidden",
                next_step=f"ask the operator for a key with it: genserve keys add-http NAME --rights {right}",
            )

    def check_room(self, jobs: int) -> None:
        """Raise GenServeError where a request of so many jobs could never be admitted."""
        if self.key is not None and self.key.jobs_max is not None and jobs > self.key.jobs_max:
            raise GenServeError(
                "invalid_request",
                f"n is {jobs}, and the key {self.key.name!r} may have {self.key.jobs_max} jobs at one time (jobs_max)",
                param="n",
            )


ANYBODY = Caller()


class KnownKeys:
    """The keys of the file, found by their texts.

    No answer tells by its time how much of a key was right: hashes are compared, never texts, and in constant time.
    """

    def __init__(self, entries: Sequence[HttpKey]) -> None:
        self.valid = frozenset(entry.sha256 for entry in entries if entry.valid)
        self._by_beginning: dict[str, list[HttpKey]] = defaultdict(list)
        for entry in entries:
            self._by_beginning[entry.sha256[:BEGINNING_CHARS]].append(entry)

    def find(self, text: str) -> HttpKey | None:
        """The entry of a key, valid or not."""
        hashed, found = hash_of(text), None
        for entry in self._by_beginning.get(hashed[:BEGINNING_CHARS], ()):
            if compare_digest(entry.sha256, hashed):
                found = entry
        return found


def key_text(headers: Mapping[str, str]) -> str:
    """The key that a request brings, '' for none. Raises HttpError 401 for an Authorization of another kind."""
    given = headers.get(HEADERS[0], "")
    if not given:
        return headers.get(HEADERS[1], "").strip()
    if given[: len(BEARER)].lower() != BEARER:
        raise refused(f"{HEADERS[0]} is not 'Bearer KEY'")
    return given[len(BEARER) :].strip()


def caller_of(text: str, known: KnownKeys) -> Caller:
    """Whose key it is. Raises HttpError 401 where it is nobody's, or was revoked."""
    if not text:
        raise refused("this service needs a key")
    key = known.find(text)
    if key is None:
        raise refused(f"this is no key of this service{f': {why}' if (why := what_is_wrong(text)) else ''}")
    if not key.valid:
        raise revoked(key.name)
    return Caller(owner=key.owner, rights=key.rights, key=key)


def revoked(name: str) -> HttpError:
    """401 for a key that was one."""
    return refused(f"the key {name!r} was revoked")


def refused(why: str) -> HttpError:
    """401, in the shape that OpenAI's clients know."""
    return HttpError(401, why, code="invalid_api_key", param=HEADERS[0], next_step=MAKE_ONE)
