"""Forms, read piece by piece as they arrive: text fields and files, each within its bounds.

Pure. Knows no field's meaning, only which of them are files. Names of files on the client's disk are not kept.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from email.message import Message as Headers
from urllib.parse import parse_qsl

from common.errors import GenServeError
from common.messages import INPUT_BYTES_MAX
from gateway.dialects.body import show
from gateway.dialects.errors import HttpError

PARTS_MAX = 64
FIELD_BYTES_MAX = 64 * 1024  # of one text field
HEAD_BYTES_MAX = 4096  # of one part's headers
FIELDS_BYTES_MAX = 256 * 1024  # of a form without files
PREAMBLE_BYTES_MAX = 1024  # before the first part
BOUNDARY_CHARS_MAX = 70
AS_FORM = "send the fields and files as multipart/form-data, as `curl -F` and every form does"
NO_FILE = "must be a picture's file; no address is fetched and no text decoded"
TWICE = "stands twice in the form; say which is meant"
_BOUNDARY = re.compile(r"[0-9a-zA-Z'()+_,./:=? -]*[0-9a-zA-Z'()+_,./:=?-]")


@dataclass
class Form:
    """What came: fields by name, and files by the name of their field, in their order; `name[]` counts as `name`."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)


def reader_of(content_type: str, files: Collection[str]) -> "FormReader | FieldsReader":
    """What reads a form of this type. Raises HttpError 415."""
    if _headers_of(content_type).get_content_type() == "application/x-www-form-urlencoded":
        return FieldsReader(files)
    return FormReader(boundary_of(content_type), files)


def boundary_of(content_type: str) -> bytes:
    """The boundary that the header names. Raises HttpError 415 for any other type."""
    headers = _headers_of(content_type)
    boundary = headers.get_param("boundary", "")
    if headers.get_content_type() != "multipart/form-data":
        kind = headers.get_content_type()[:40]
        text = f"the body must be a form: send Content-Type: multipart/form-data, not {kind}"
        raise HttpError(415, text, param="Content-Type", next_step=AS_FORM)
    if not isinstance(boundary, str) or len(boundary) > BOUNDARY_CHARS_MAX or not _BOUNDARY.fullmatch(boundary):
        raise HttpError(415, "Content-Type names no boundary as it should", param="Content-Type", next_step=AS_FORM)
    return boundary.encode("ascii")


class FieldsReader:
    """The same of a form without files, as it is sent by who has none: application/x-www-form-urlencoded."""

    def __init__(self, files: Collection[str]) -> None:
        self._files = files
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """The next piece."""
        self._data += data
        if len(self._data) > FIELDS_BYTES_MAX:
            raise GenServeError("too_large", f"the form has more than {FIELDS_BYTES_MAX} bytes")

    def finish(self) -> Form:
        """All has come."""
        form = Form()
        try:
            text = self._data.decode("ascii")
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=PARTS_MAX)
        except ValueError:  # UnicodeDecodeError is one
            text = f"the body is no form as it should be, in UTF-8 and of at most {PARTS_MAX} fields"
            raise GenServeError("invalid_request", text) from None
        for name, value in pairs:
            if name.removesuffix("[]") in self._files:
                raise _refused(name, NO_FILE)
            if name in form.fields:
                raise _refused(name, TWICE)
            form.fields[name] = value
        return form


class FormReader:
    """Given the body in pieces by `feed`; `finish` has the form. Each raises GenServeError, naming the field."""

    def __init__(self, boundary: bytes, files: Collection[str]) -> None:
        """`files`: the names of the fields that are files, without brackets."""
        self._delimiter = b"\r\n--" + boundary
        self._files = files
        self._unread = bytearray(b"\r\n")  # a body may begin with its first boundary
        self._take = self._preamble
        self._form = Form()
        self._parts = 0
        self._name = ""
        self._is_file = False
        self._data = bytearray()
        self._ended = False

    def feed(self, data: bytes) -> None:
        """The next piece."""
        self._unread += data
        while self._take():
            pass

    def finish(self) -> Form:
        """All has come."""
        if not self._ended:
            raise _malformed("it ends before its last boundary")
        return self._form

    # --- states: each takes what it can, and says whether the next one may go on ---------------

    def _preamble(self) -> bool:
        at = self._unread.find(self._delimiter)
        if at > PREAMBLE_BYTES_MAX or (at < 0 and len(self._unread) > PREAMBLE_BYTES_MAX + len(self._delimiter)):
            raise _malformed("its first boundary does not come")
        if at < 0:
            return False
        del self._unread[: at + len(self._delimiter)]
        self._take = self._after_boundary
        return True

    def _after_boundary(self) -> bool:
        if len(self._unread) < 2:
            return False
        if self._unread.startswith(b"--"):
            self._ended = True
            self._take = self._epilogue
            return True
        if not self._unread.startswith(b"\r\n"):
            raise _malformed("a boundary is followed by something else than a new line")
        self._take = self._head
        return True

    def _epilogue(self) -> bool:
        self._unread.clear()
        return False

    def _head(self) -> bool:
        at = self._unread.find(b"\r\n\r\n")
        if at > HEAD_BYTES_MAX or (at < 0 and len(self._unread) > HEAD_BYTES_MAX):
            raise _malformed(f"the headers of a part have more than {HEAD_BYTES_MAX} bytes")
        if at < 0:
            return False
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise GenServeError("too_large", f"the form has more than {PARTS_MAX} parts")
        self._begin(bytes(self._unread[2:at]))
        del self._unread[: at + 2]  # an empty part's boundary begins with the headers' last new line
        self._data = bytearray()
        self._take = self._body
        return True

    def _body(self) -> bool:
        at = self._unread.find(self._delimiter)
        if at < 0:
            sure = len(self._unread) - len(self._delimiter) + 1
            if sure > 0:
                self._add(sure)
            return False
        self._add(at)
        del self._unread[: len(self._delimiter)]
        self._end()
        self._take = self._after_boundary
        return True

    # --- one part ------------------------------------------------------------------------------

    def _begin(self, head: bytes) -> None:
        headers = Headers()
        for line in head.split(b"\r\n"):
            name, colon, value = line.decode("utf-8", errors="replace").partition(":")
            if not colon or not name.strip().isprintable():
                raise _malformed("a part's header is no header")
            headers[name.strip()] = value.strip()
        named = headers.get_param("name", "", "Content-Disposition")
        if headers.get_content_disposition() != "form-data" or not isinstance(named, str) or not named:
            raise _malformed('a part has no Content-Disposition: form-data; name="…"')
        self._name = named.removesuffix("[]")
        encoding = headers.get("Content-Transfer-Encoding", "binary").lower()
        if encoding not in ("binary", "8bit", "7bit") or "Content-Encoding" in headers:
            raise _refused(self._name, "is encoded; send its bytes as they are")
        self._is_file = headers.get_param("filename", None, "Content-Disposition") is not None
        if self._name in self._files:
            if not self._is_file:
                raise _refused(self._name, NO_FILE)
            return
        if self._is_file:
            there = ", ".join(sorted(self._files))
            raise _refused(self._name, f"takes no file here; there are {there}")
        if self._name in self._form.fields:
            raise _refused(self._name, TWICE)

    def _add(self, size: int) -> None:
        self._data += self._unread[:size]
        del self._unread[:size]
        limit = INPUT_BYTES_MAX if self._is_file else FIELD_BYTES_MAX
        if len(self._data) - 2 > limit:
            what = "the file" if self._is_file else "it"
            raise GenServeError("too_large", f"{self._shown}: {what} has more than {limit} bytes", param=self._shown)

    def _end(self) -> None:
        data, self._data = bytes(memoryview(self._data)[2:]), bytearray()  # without the new line after the headers
        if self._is_file:
            if data:  # a form sends an empty one where none was chosen
                self._form.files.setdefault(self._name, []).append(data)
            return
        try:
            self._form.fields[self._name] = data.decode()
        except UnicodeDecodeError:
            raise _refused(self._name, "is not UTF-8") from None

    @property
    def _shown(self) -> str:
        return _shown(self._name)


def _headers_of(content_type: str) -> Headers:
    headers = Headers()
    headers["Content-Type"] = content_type
    return headers


def _shown(name: str) -> str:
    return name[:40].encode(errors="replace").decode()


def _refused(name: str, why: str) -> GenServeError:
    return GenServeError("invalid_request", f"{show(name)} {why}", param=_shown(name))


def _malformed(why: str) -> GenServeError:
    return GenServeError("invalid_request", f"the body is no multipart/form-data as it should be: {why}")
