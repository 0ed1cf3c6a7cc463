"""Links to pictures that work for whoever has them, until they expire: signed by the gateway.

Pure. A link names a job, which of its files, whose it is and until when; its signature is an HMAC of all four, so that
none of them can be changed. That the file is still kept is the router's business.
"""

import hmac
import re
from collections.abc import Mapping
from hashlib import sha256
from urllib.parse import urlencode

from common.roles import LOCAL_NAME
from gateway.dialects.errors import HttpError

PART = "image"  # the picture: the only file of a job that has links
NEW_ONE = "ask for the picture again, or for its file: GET /v1/jobs/{id}/image"
_TIME = re.compile(r"[0-9]{1,12}")


def path_of(secret: bytes, job_id: str, *, owner: str, expires_at: int) -> str:
    """The path of a link to the picture of a job, good until `expires_at` (wall seconds)."""
    more = {} if owner == LOCAL_NAME else {"owner": owner}
    query = {"expires": str(expires_at), **more, "signature": _sign(secret, job_id, PART, owner, expires_at)}
    return f"/v1/images/files/{job_id}/{PART}?{urlencode(query)}"


def check(secret: bytes, job_id: str, part: str, query: Mapping[str, str], *, wall_s: float) -> str:
    """Whose job a link leads to. Raises HttpError 403 where it is not one of ours, or is over."""
    expires, owner = query.get("expires", ""), query.get("owner", LOCAL_NAME)
    good = _TIME.fullmatch(expires) is not None
    signature = _sign(secret, job_id, part, owner, int(expires) if good else 0)
    if not hmac.compare_digest(signature.encode(), query.get("signature", "").encode(errors="replace")) or not good:
        text = "this link is not as it was given: its signature does not fit"
        raise HttpError(
            403, text, code="forbidden", param="signature", next_step=f"use it as it was given, or {NEW_ONE}"
        )
    if wall_s >= int(expires):
        text = f"this link ended {wall_s - int(expires):.0f} s ago (gateway.link_ttl_s)"
        raise HttpError(403, text, code="forbidden", param="expires", next_step=NEW_ONE)
    return owner


def _sign(secret: bytes, job_id: str, part: str, owner: str, expires_at: int) -> str:
    told = "\n".join(("1", job_id, part, str(expires_at), owner))  # the owner last: it may hold anything
    return hmac.new(secret, told.encode(errors="surrogatepass"), sha256).hexdigest()
