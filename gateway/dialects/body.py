"""A request body to a typed struct, one field at a time, so that every complaint names its field.

Pure. Knows JSON and structs; knows no dialect. `null` means that the field was left out.
"""

import difflib
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from common.errors import GenServeError
from common.messages import NEGATIVE_PROMPT_CHARS_MAX, PREVIEWS_MAX, PROMPT_CHARS_MAX, SEED_MAX, SIDE_MAX, STEPS_MAX
from gateway.dialects.errors import HttpError

Prompt = Annotated[str, Meta(max_length=PROMPT_CHARS_MAX)]
NegativePrompt = Annotated[str, Meta(max_length=NEGATIVE_PROMPT_CHARS_MAX)]
ModelName = Annotated[str, Meta(max_length=128)]
Seed = Annotated[int, Meta(ge=0, le=SEED_MAX)]
Side = Annotated[int, Meta(ge=1, le=SIDE_MAX)]  # pixels
Steps = Annotated[int, Meta(ge=1, le=STEPS_MAX)]
Previews = Annotated[int, Meta(ge=0, le=PREVIEWS_MAX)]
Strength = Annotated[float, Meta(gt=0, le=1)]
Compression = Annotated[int, Meta(ge=0, le=100)]
Guidance = Annotated[float, Meta(ge=0, le=100)]
TrueCfg = Annotated[float, Meta(ge=1, le=100)]
Priority = Annotated[int, Meta(ge=-10, le=10)]
Deadline = Annotated[float, Meta(gt=0, le=1e7)]  # seconds from acceptance to the picture

SHOWN_CHARS_MAX = 40  # of a wrong value or name, in its error
WHOLE_BODY = 'send one JSON object, e.g. {"prompt": "a red circle"}, with the header Content-Type: application/json'
_EXPECTED = re.compile(r"\b(expected|got) ([a-z]+(?: \| [a-z]+)*)")
_KINDS = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
}
INT_DIGITS_MAX = 40  # far beyond every bound; a longer number is too large, whatever it is


class Body(Struct, frozen=True, kw_only=True):
    """A request body; each field has the bounds that are checked."""


B = TypeVar("B", bound=Body)


def read(body: bytes, type_: type[B]) -> B:
    """The body as `type_`.

    Raises GenServeError invalid_request for what is not one JSON object, for a field that `type_` does not
    have or that stands there twice, a missing one and a value outside its bounds; `param` names the field.
    """
    fields = _fields(type_)
    given: dict[str, Any] = {}
    for name, value in _read_object(body).items():
        if name not in fields:
            raise _refusal(name, f"{show(name)} is no field here{_near(name, fields)}")
        if value is not None:
            given[name] = _convert(name, value, fields[name].type)
    return _made(type_, given)


def read_form(fields: Mapping[str, str], type_: type[B]) -> B:
    """The same from the text fields of a form: an empty one was left out. Raises as `read` does."""
    known, given = _fields(type_), dict[str, Any]()
    for name, text in fields.items():
        if name not in known:
            raise _refusal(name, f"{show(name)} is no field here{_near(name, known)}")
        if text:
            given[name] = _convert(name, text, known[name].type, strict=False)
    return _made(type_, given)


def said(request: Body) -> bytes:
    """What a request says beyond defaults: the same bytes for the same wish, however its JSON was written."""
    fields = _fields(type(request))
    given = {name: getattr(request, name) for name in fields}
    return msgspec.json.encode({name: value for name, value in given.items() if value != fields[name].default})


def not_blank(name: str, text: str) -> str:
    """`text`. Raises GenServeError invalid_request where it is empty or holds white space only."""
    if not text.strip():
        raise GenServeError("invalid_request", f"{name} is empty; say what to draw", param=name)
    return text


def show(value: object) -> str:
    """A value as an error message quotes it: short, and never a whole prompt."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    if isinstance(value, str) and len(text) > SHOWN_CHARS_MAX:
        return f"{text[:SHOWN_CHARS_MAX]}…' ({len(value)} characters)"
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}…"


def _kind(value: object) -> str:
    return "a text" if isinstance(value, str) else show(value)


def _read_object(body: bytes) -> dict[str, Any]:
    try:
        value = _decoder.decode(body.decode())
    except ValueError as error:  # of JSON, or of UTF-8
        raise HttpError(400, f"the body is not valid JSON in UTF-8: {error}", next_step=WHOLE_BODY) from None
    except RecursionError:
        raise HttpError(400, "the body is JSON nested too deeply", next_step=WHOLE_BODY) from None
    if not isinstance(value, dict):
        raise HttpError(400, f"the body must be one JSON object {{…}}, not {_kind(value)}", next_step=WHOLE_BODY)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise _refusal(name, f"{show(name)} stands twice in one object; say which is meant")
    return found


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= INT_DIGITS_MAX else math.inf


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)


def _refusal(name: str, message: str) -> GenServeError:
    """Its `param` is `name`, which may be any text, of any length, half a surrogate pair included."""
    param = name[:SHOWN_CHARS_MAX].encode(errors="replace").decode()
    return GenServeError("invalid_request", message, param=param)


@lru_cache
def _fields(type_: type[Body]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(type_)}


def _made(type_: type[B], given: dict[str, Any]) -> B:
    try:
        return type_(**given)
    except TypeError:
        missing = next(name for name, field in _fields(type_).items() if field.required and name not in given)
        raise GenServeError("invalid_request", f"{missing} is missing", param=missing) from None


def _convert(name: str, value: Any, type_: Any, *, strict: bool = True) -> Any:
    if isinstance(value, str) and not _is_unicode(value):
        raise _refusal(name, f"{name} = {show(value)} is not right: it holds one half of a surrogate pair")
    if isinstance(value, float) and math.isinf(value):
        raise _refusal(name, f"{name} is not right: the number is too large")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # to JSON, 28.0 and 28 are one number
    try:
        return msgspec.convert(value, type_, strict=strict)
    except msgspec.ValidationError as error:
        reason = _EXPECTED.sub(_in_words, str(error).replace("Expected", "expected").replace("`", ""))
        raise _refusal(name, f"{name} = {show(value)} is not right: {reason}") from None


def _in_words(found: re.Match[str]) -> str:
    """Of which kind a value is, without the names that Python has for it; null stands for none at all."""
    kinds = [_KINDS.get(kind, kind) for kind in found[2].split(" | ") if kind != "null" or found[1] == "got"]
    return f"{found[1]} {' or '.join(kinds)}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _near(name: str, known: dict[str, msgspec.structs.FieldInfo]) -> str:
    close = difflib.get_close_matches(name[:64], known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"
