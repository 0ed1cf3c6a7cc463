"""Forms in pieces of any size, and each one that is refused, with the field at fault."""

import random

import pytest

from common.errors import GenServeError
from common.messages import INPUT_BYTES_MAX
from gateway.dialects.errors import HttpError
from gateway.dialects.multipart import FIELD_BYTES_MAX, PARTS_MAX, Form, FormReader, boundary_of

BOUNDARY = b"----x"
FILES = ("image", "mask")
Part = tuple[str, bytes]  # what follows `form-data; `, and the data


def body_of(*parts: Part, more: str = "", end: bytes = b"--\r\n") -> bytes:
    text = b""
    for disposition, data in parts:
        head = f"Content-Disposition: form-data; {disposition}\r\n{more}\r\n".encode()
        text += b"--" + BOUNDARY + b"\r\n" + head + data + b"\r\n"
    return text + b"--" + BOUNDARY + end


def read(body: bytes, piece: int = 1 << 30) -> Form:
    reader = FormReader(BOUNDARY, FILES)
    for at in range(0, len(body), piece):
        reader.feed(body[at : at + piece])
    return reader.finish()


GOOD = body_of(
    ('name="prompt"', "ein Fuchs 🦊\r\n--".encode()),
    ('name="image[]"; filename="a;\\"b.png"', b"\x89PNG\r\n--" + BOUNDARY[:-1] + b"\r\n" + bytes(range(256))),
    ("name=n", b"2"),
    ('name="mask"; filename="m.png"', b""),
    ('name="user"', b""),
)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 10_000])
def test_the_pieces_do_not_matter(piece: int) -> None:
    for preamble in (b"", b"\r\n", b"this is a form\r\n"):
        form = read(preamble + GOOD, piece)
        assert form.fields == {"prompt": "ein Fuchs 🦊\r\n--", "n": "2", "user": ""}
        assert form.files == {"image": [b"\x89PNG\r\n--" + BOUNDARY[:-1] + b"\r\n" + bytes(range(256))]}


def test_files_of_one_field_stay_in_their_order() -> None:
    form = read(body_of(('name="image[]"; filename="a"', b"1"), ('name="image"; filename="b"', b"2")))
    assert form.files == {"image": [b"1", b"2"]}


@pytest.mark.parametrize(
    ("parts", "param", "says"),
    [
        ([('name="image"', b"https://example.org/cat.png")], "image", "no address is fetched"),
        ([('name="prompt"; filename="x"', b"")], "prompt", "image, mask"),
        ([('name="prompt"', b"a"), ('name="prompt"', b"b")], "prompt", "twice"),
        ([('name="prompt"', b"\xff")], "prompt", "UTF-8"),
        ([('name="prompt"', b"x" * (FIELD_BYTES_MAX + 1))], "prompt", str(FIELD_BYTES_MAX)),
        ([('name="image"; filename="x"', b"x" * (INPUT_BYTES_MAX + 1))], "image", str(INPUT_BYTES_MAX)),
        ([(f'name="f{n}"', b"") for n in range(PARTS_MAX + 1)], None, str(PARTS_MAX)),
        ([("filename=x", b"")], None, "Content-Disposition"),
        ([('name="x"; a="' + "y" * 5000, b"")], None, "4096"),
    ],
)
def test_refused(parts: list[Part], param: str | None, says: str) -> None:
    with pytest.raises(GenServeError) as refused:
        read(body_of(*parts), 60_000)
    assert refused.value.param == param
    assert says in refused.value.message


def test_a_part_that_is_encoded_is_refused() -> None:
    for more in ("Content-Transfer-Encoding: base64\r\n", "Content-Encoding: gzip\r\n"):
        with pytest.raises(GenServeError, match="encoded"):
            read(body_of(('name="image"; filename="x"', b"eA=="), more=more))


def test_a_body_that_is_cut_or_damaged_is_refused_whatever_the_place() -> None:
    chance = random.Random(5)
    for at in range(0, len(GOOD) - 4, 3):
        with pytest.raises(GenServeError):
            read(GOOD[:at])
    for _ in range(500):
        changed = bytearray(GOOD)
        for _ in range(3):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        try:
            read(bytes(changed), 50)
        except GenServeError as error:
            assert error.code in ("invalid_request", "too_large")  # noqa: PT017  # most of them are still forms


def test_what_never_begins_or_never_ends_is_not_kept() -> None:
    for endless in (b"x" * 2000, b"--" + BOUNDARY + b"\r\n" + b"h: " + b"x" * 5000):
        reader = FormReader(BOUNDARY, FILES)
        with pytest.raises(GenServeError, match="multipart"):
            reader.feed(endless)
    reader = FormReader(BOUNDARY, FILES)
    reader.feed(GOOD)
    for _ in range(100):
        reader.feed(b"epilogue" * 1000)
    assert len(reader._unread) == 0


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/mixed; boundary=x", "multipart/form-data", 'multipart/form-data; boundary=""',
     f"multipart/form-data; boundary={'x' * 71}", "multipart/form-data; boundary=a\tb"],
)  # fmt: skip
def test_other_types_are_refused(content_type: str) -> None:
    with pytest.raises(HttpError) as refused:
        boundary_of(content_type)
    assert (refused.value.status, refused.value.param) == (415, "Content-Type")


def test_the_boundary_is_read() -> None:
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="a b=c"') == b"a b=c"
