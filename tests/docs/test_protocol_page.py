"""docs/protocol.md is held to the structs: each message, each field, each code, and bytes that really decode."""

import re
from pathlib import Path

import msgpack
import msgspec
import pytest

from common import codec
from common.codec import FROM_CLIENT, encode
from common.errors import ERRORS
from common.messages import (
    CLIENT_TO_ROUTER,
    ROUTER_TO_CLIENT,
    ROUTER_TO_WORKER,
    WORKER_TO_ROUTER,
    DeviceInfo,
    DeviceLoad,
    ErrorInfo,
    FailureView,
    HeldToken,
    Histogram,
    InputPicture,
    JobOrder,
    JobSpec,
    JobView,
    KeyView,
    Message,
    ModelView,
    Note,
    Picture,
    RouterLimits,
    RouterMeasures,
    RouterStats,
    Timings,
    Token,
    WorkerView,
)
from common.models import ModelCard

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text("utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^#{2,3} (.+?)\n(.*?)(?=^#{2,3} |\Z)", PAGE, re.MULTILINE | re.DOTALL))
# Names that run both ways have a section each.
SAME_NAME = {
    ("to a client", "JOB"): "JOB (answer)",
    ("to a client", "STATUS"): "STATUS (answer)",
    ("to a client", "JOBS"): "JOBS (answer)",
    ("to a client", "DEAD_LETTERS"): "DEAD_LETTERS (answer)",
    ("to a client", "KEYS"): "KEYS (answer)",
    ("from a daemon", "PROGRESS"): "PROGRESS (from a daemon)",
    ("to a daemon", "CANCEL"): "CANCEL (to a daemon)",
}
DIRECTIONS = {
    "from a client": CLIENT_TO_ROUTER,
    "to a client": ROUTER_TO_CLIENT,
    "from a daemon": WORKER_TO_ROUTER,
    "to a daemon": ROUTER_TO_WORKER,
}
MESSAGES = [(way, name.decode(), kind) for way, kinds in DIRECTIONS.items() for name, kind in kinds.items()]
MAPS = {
    "The job": (JobSpec,),
    "Inputs": (InputPicture,),
    "A job as it stands": (JobView, Note, Timings),
    "The picture": (Picture,),
    "The error": (ErrorInfo,),
    "A GPU": (WorkerView, DeviceInfo, DeviceLoad),
    "A model": (ModelView, ModelCard),
    "A failure": (FailureView,),
    "KEYS (answer)": (KeyView,),
    "The counts": (RouterStats,),
    "The limits": (RouterLimits,),
    "The measures": (RouterMeasures, Histogram),
    "REGISTER": (DeviceInfo, HeldToken),
    "DISPATCH": (JobOrder,),
    "DONE": (Timings, Note),
    "HEARTBEAT": (DeviceLoad,),
    "Between GPU daemons and the router": (Token,),
}


def named(section: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", SECTIONS[section]))


def fields_of_table(section: str) -> set[str]:
    cells = re.findall(r"^\| (`[^|]*) \|", SECTIONS[section], re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize(("way", "name", "kind"), MESSAGES, ids=str)
def test_a_message_has_a_section_with_exactly_its_fields(way: str, name: str, kind: type[Message]) -> None:
    section = SAME_NAME.get((way, name), name)
    assert fields_of_table(section) == set(kind.__struct_fields__)


@pytest.mark.parametrize(("section", "kinds"), MAPS.items())
def test_a_map_names_every_field(section: str, kinds: tuple[type[msgspec.Struct], ...]) -> None:
    missing = [field for kind in kinds for field in kind.__struct_fields__ if field not in named(section)]
    assert not missing


def test_every_code_stands_with_what_it_implies() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (yes|no) \| (.*) \|$", SECTIONS["Codes"], re.MULTILINE)
    kinds = ERRORS.values()
    assert rows == [(k.code, str(k.fault), "yes" if k.retryable else "no", k.next_step) for k in kinds]


def test_the_bytes_shown_are_the_bytes_sent() -> None:
    blocks = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    decoded = []
    for block in blocks:
        frames: list[bytes] = []
        for line in block.splitlines():
            data, _, told = line.partition("    ")
            frame = bytes.fromhex(data)
            if told or len(frames) < 2:
                frames.append(frame)
            else:
                frames[-1] += frame
        decoded.append(FROM_CLIENT.decode(frames))
        assert [*frames[:2], msgpack.packb(msgpack.unpackb(frames[2]))] == frames
        assert FROM_CLIENT.decode(encode(decoded[-1])) == decoded[-1]
    assert [message.NAME for message in decoded] == [b"PING", b"SUBMIT"]


@pytest.mark.parametrize("bound", [codec.HEADER_BYTES_MAX, codec.PART_BYTES_MAX])
def test_the_limits_of_frames_stand_there(bound: int) -> None:
    assert f"{bound:,} bytes" in PAGE
    assert f"at most {codec.PARTS_MAX} of them" in PAGE


def test_the_limits_of_fields_stand_there() -> None:
    job = SECTIONS["The job"]
    for field in msgspec.json.schema(JobSpec)["$defs"]["JobSpec"]["properties"].values():
        for key in ("maxLength", "maximum"):
            if (bound := field.get(key)) and bound < 2**62:
                assert str(bound) in job, field
