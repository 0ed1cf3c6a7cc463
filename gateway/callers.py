"""Who asks: one caller a request, by the key that it brings, and what that key may do and have.

Pure. Without keys everyone is one caller, who may do everything, as on a machine of one's own.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from common.http_keys import HttpKey, Right, hash_of, what_is_wrong
from common.messages import Terms
from common.roles import ANYONE, LOCAL_NAME
from gateway.dialects.errors import HttpError

BEARER = "bearer "
HEADERS = ("Authorization", "X-API-Key")
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


ANYBODY = Caller()


def key_text(headers: Mapping[str, str]) -> str:
    """The key that a request brings, '' for none. Raises HttpError 401 for an Authorization of another kind."""
    given = headers.get(HEADERS[0], "")
    if not given:
        return headers.get(HEADERS[1], "").strip()
    if given[: len(BEARER)].lower() != BEARER:
        raise refused(f"{HEADERS[0]} is not 'Bearer KEY'")
    return given[len(BEARER) :].strip()


def caller_of(text: str, keys: Mapping[str, HttpKey], former: Mapping[str, HttpKey]) -> Caller:
    """Whose key it is, by the hashes of those that may be used and of the `former` ones. Raises HttpError 401.

    A hash is looked up, so that no comparison tells by its time how much of a key was right.
    """
    if not text:
        raise refused("this service needs a key")
    hashed = hash_of(text)
    if (key := keys.get(hashed)) is not None:
        return Caller(owner=key.owner, rights=key.rights, key=key)
    if hashed in former:
        raise refused(f"the key {former[hashed].name!r} was revoked")
    raise refused(f"this is no key of this service{f': {why}' if (why := what_is_wrong(text)) else ''}")


def by_hash(entries: Sequence[HttpKey]) -> tuple[dict[str, HttpKey], dict[str, HttpKey]]:
    """Those that may be used, and those that no longer may."""
    valid = {entry.sha256: entry for entry in entries if entry.valid}
    return valid, {entry.sha256: entry for entry in entries if not entry.valid}


def refused(why: str) -> HttpError:
    """401, in the shape that OpenAI's clients know."""
    return HttpError(401, why, code="invalid_api_key", param=HEADERS[0], next_step=MAKE_ONE)
