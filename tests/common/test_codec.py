"""The codec: what it says is what msgpack says, and nothing but ProtocolError comes out of it."""

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.codec import (
    FROM_CLIENT,
    FROM_WORKER,
    HEADER_BYTES_MAX,
    PART_BYTES_MAX,
    PARTS_MAX,
    TO_CLIENT,
    TO_WORKER,
    Direction,
    encode,
    part_sizes,
    split_payload,
)
from common.errors import ProtocolError
from common.messages import (
    CLIENT_TO_ROUTER,
    ROUTER_TO_CLIENT,
    ROUTER_TO_WORKER,
    WORKER_TO_ROUTER,
    JobSpec,
    Message,
    Ping,
    Submit,
)
from tests.common import samples
from tests.common.bad_frames import CLIENT_FRAMES, WORKER_FRAMES

ROUTES = [
    (FROM_CLIENT, CLIENT_TO_ROUTER, samples.CLIENT),
    (TO_CLIENT, ROUTER_TO_CLIENT, samples.TO_CLIENT),
    (FROM_WORKER, WORKER_TO_ROUTER, samples.WORKER_MESSAGES),
    (TO_WORKER, ROUTER_TO_WORKER, samples.TO_WORKER),
]
EVERY = [(direction, message) for direction, _, messages in ROUTES for message in messages]


def _payload(message: Message) -> tuple[bytes, ...]:
    return samples.PAYLOAD if getattr(message, "parts", ()) else ()


@pytest.mark.parametrize(("direction", "message"), EVERY, ids=lambda value: type(value).__name__)
def test_what_goes_in_comes_out(direction: Direction, message: Message) -> None:
    assert direction.decode(encode(message, _payload(message))) == message


@pytest.mark.parametrize("message", [message for _, message in EVERY], ids=lambda value: type(value).__name__)
def test_the_two_codecs_read_what_the_other_writes(message: Message) -> None:
    header = bytes(encode(message, _payload(message))[2])
    plain = msgpack.unpackb(header)
    assert msgspec.msgpack.decode(header) == plain == msgspec.msgpack.decode(msgpack.packb(plain))
    assert msgspec.msgpack.decode(msgpack.packb(plain), type=type(message)) == message


def test_samples_cover_every_message() -> None:
    for _, table, messages in ROUTES:
        covered = {message.NAME for message in messages}
        assert covered | {b"ERROR"} == set(table)


@pytest.mark.parametrize("frames", CLIENT_FRAMES)
def test_bad_client_frames_raise_protocol_error(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError) as caught:
        FROM_CLIENT.decode(frames)
    assert caught.value.message


@pytest.mark.parametrize("frames", WORKER_FRAMES)
def test_bad_worker_frames_raise_protocol_error(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        FROM_WORKER.decode(frames)


def test_there_are_at_least_two_hundred_bad_frames() -> None:
    assert len(CLIENT_FRAMES) + len(WORKER_FRAMES) >= 250


def test_a_wrong_field_is_named_and_so_is_the_request() -> None:
    header = msgpack.packb({"rid": "r7", "job": {"prompt": "x", "steps": "many"}})
    with pytest.raises(ProtocolError, match=r"\$\.job\.steps") as caught:
        FROM_CLIENT.decode([b"GS1", b"SUBMIT", header])
    assert caught.value.rid == "r7"


def test_our_own_processes_ignore_fields_they_do_not_know() -> None:
    header = msgpack.packb({"epoch": 1, "granted_total": 2, "from_a_later_version": [1]})
    assert FROM_WORKER.decode([b"GS1", b"CREDIT", header]) == samples.WORKER_MESSAGES[1]


def test_a_header_too_long_is_refused_when_written_too() -> None:
    spec = JobSpec(prompt="猫" * 8000, negative_prompt="狗" * 4000)
    assert len(encode(Submit(rid="r", job=spec))[2]) < HEADER_BYTES_MAX  # the longest prompts fit
    long = Submit(rid="r", job=JobSpec(prompt="x" * HEADER_BYTES_MAX))
    with pytest.raises(ProtocolError, match=str(HEADER_BYTES_MAX)):
        encode(long)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ProtocolError, match="Unicode"):
        encode(Submit(rid="r", job=JobSpec(prompt="\ud800")))


def test_payloads_are_split_and_bounded() -> None:
    data = bytes(range(256)) * 4096 + b"tail"
    parts = split_payload(data)
    assert part_sizes(parts) == (PART_BYTES_MAX, PART_BYTES_MAX, 4)
    assert b"".join(parts) == data
    with pytest.raises(ProtocolError):
        split_payload(bytes(PART_BYTES_MAX * PARTS_MAX + 1))


@given(st.lists(st.binary(max_size=64), max_size=6))
def test_arbitrary_frames_raise_nothing_else(frames: list[bytes]) -> None:
    for direction in (FROM_CLIENT, FROM_WORKER, TO_CLIENT, TO_WORKER):
        with pytest.raises(ProtocolError):
            direction.decode(frames)


@given(st.sampled_from(sorted(CLIENT_TO_ROUTER)), st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_arbitrary_headers_raise_nothing_else(name: bytes, header: object) -> None:
    try:
        message = FROM_CLIENT.decode([b"GS1", name, msgpack.packb(header)])
    except ProtocolError:
        return
    assert encode(message)[1] == name


def test_repeated_keys_are_refused_from_clients() -> None:
    with pytest.raises(ProtocolError, match="twice"):
        FROM_CLIENT.decode([b"GS1", b"PING", b"\x82\xa3rid\xa1r\xa3rid\xa1r"])
    assert FROM_CLIENT.decode(encode(Ping(rid="r"))) == Ping(rid="r")


def test_an_error_with_what_nobody_reads_is_decoded_or_refused_like_any_other() -> None:
    """ERROR is not strict about fields, so its unknown ones are seen by the search for repeated keys alone."""
    known = b"\xa4code\xa1c\xa7message\xa1m"
    assert FROM_CLIENT.decode([b"GS1", b"ERROR", b"\x83" + known + b"\xa1x\x01"]).NAME == b"ERROR"
    for odd in (b"\xa3\xed\xa0\x80", b"\xa1\xff", b"\x81\x90\xc0", b"\x91" * 20_000 + b"\xc0", b"\xc7\x01\xff\x00"):
        with pytest.raises(ProtocolError, match="cannot be read"):
            FROM_CLIENT.decode([b"GS1", b"ERROR", b"\x83" + known + b"\xa1x" + odd])


def test_a_refusal_never_repeats_all_that_it_was_given() -> None:
    for field in ({"x" * 65_000: 1, "rid": "r"}, {"rid": "r", "job": {"prompt": "x", "y" * 65_000: 1}}):
        with pytest.raises(ProtocolError) as caught:
            FROM_CLIENT.decode([b"GS1", b"SUBMIT", msgpack.packb(field)])
        assert len(caught.value.message) < 600


def test_the_request_is_named_wherever_its_name_could_be_read() -> None:
    header = msgpack.packb({"rid": "r7"})
    for frames in ([b"GS1", b"PING", header, b"extra"], [b"GS1", b"NOPE", header]):
        with pytest.raises(ProtocolError) as caught:
            FROM_CLIENT.decode(frames)
        assert caught.value.rid == "r7"
