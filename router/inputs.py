"""The pictures that jobs start from: which are being stored before their job is accepted, and how much is kept.

Pure. Where and how they are kept is the journal's business. They are kept under the id of the job that brought them,
until the job that owns them has ended; a dead letter's until it is forgotten, or drawn anew as another job.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from common.codec import divide, input_parts
from common.errors import GenServeError, ProtocolError
from common.messages import INPUT_PIXELS_MAX, InputPicture, JobOrder, JobSpec, Submit
from common.models import ModelCard
from common.settings import RouterSettings
from router.events import NOBODY, Peer, Submitted

MIB = 1024 * 1024
RECEIVING_MAX = 64  # SUBMITs whose inputs are being stored at one time
FULL_RETRY_AFTER_S = 30.0
BUSY_RETRY_AFTER_S = 1.0
STRENGTH_DEFAULT = 0.6  # of an image without a mask, as in diffusers
MASKED_STRENGTH_DEFAULT = 1.0  # what a mask opens is drawn anew


def size_of(inputs: Iterable[InputPicture]) -> int:
    """Bytes of their files."""
    return sum(each.bytes for each in inputs)


def parts_of(order: JobOrder) -> tuple[int, ...]:
    """The frames that an order's inputs are sent in."""
    return input_parts(each.bytes for each in order.inputs)


@dataclass(slots=True)
class Inputs:
    """What is kept and what is on its way there."""

    settings: RouterSettings
    kept_bytes: int = 0  # of all jobs that own some
    receiving: dict[str, Submitted] = field(default_factory=dict)  # by the id that the job will have
    receiving_bytes: int = 0

    def has_room(self, size: int) -> bool:
        """For so many bytes more?"""
        return self.kept_bytes + self.receiving_bytes + size <= self.settings.inputs_mb_max * MIB

    def check_room(self, size: int, freed: int) -> None:
        """Raise GenServeError where so many bytes do not fit, even if `freed` of those that are kept go."""
        if not self.has_room(size - freed):
            text = f"the pictures that jobs start from fill router.inputs_mb_max = {self.settings.inputs_mb_max} MiB"
            raise GenServeError("storage_full", text, retry_after_s=FULL_RETRY_AFTER_S)
        if len(self.receiving) >= RECEIVING_MAX:
            text = f"{RECEIVING_MAX} jobs with input pictures are being taken already"
            raise GenServeError("unavailable", text, retry_after_s=BUSY_RETRY_AFTER_S)

    def receive(self, event: Submitted, submit: Submit) -> None:
        """Its inputs are to be stored, and it is decided on again then."""
        size = size_of(submit.job.inputs)
        self.receiving[event.job_id] = event
        self.receiving_bytes += size

    def received(self, job_id: str) -> Submitted:
        """They are stored, or will not be."""
        event = self.receiving.pop(job_id)
        assert isinstance(event.message, Submit)
        self.receiving_bytes -= size_of(event.message.job.inputs)
        return event

    def leave(self, peer: Peer) -> None:
        """Nobody is there any more to be answered; what was asked is decided all the same."""
        for job_id, event in self.receiving.items():
            if event.peer == peer:
                self.receiving[job_id] = replace(event, peer=NOBODY)

    def keep(self, order: JobOrder) -> None:
        """A job owns its inputs from here on."""
        self.kept_bytes += size_of(order.inputs)

    def let_go(self, order: JobOrder) -> None:
        """A job owns them no longer."""
        self.kept_bytes -= size_of(order.inputs)

    def check(self, kept: Mapping[str, JobOrder]) -> None:
        """Raise AssertionError where other jobs own inputs, or two the same; `kept`: orders by where theirs lie."""
        assert self.kept_bytes == sum(size_of(order.inputs) for order in kept.values()), self.kept_bytes
        assert len(self.receiving) <= RECEIVING_MAX
        waiting = [event.message for event in self.receiving.values()]
        assert self.receiving_bytes == sum(size_of(m.job.inputs) for m in waiting if isinstance(m, Submit))


def check_frames(submit: Submit) -> None:
    """Raise GenServeError where the payload's frames are not those of the inputs."""
    try:
        divide([range(part) for part in submit.parts], [each.bytes for each in submit.job.inputs])
    except ProtocolError as error:
        raise GenServeError("invalid_request", error.message, param="parts") from None


def resolve_inputs(spec: JobSpec, card: ModelCard) -> tuple[tuple[InputPicture, ...], float]:
    """What a job starts from and how far it may leave it. Raises GenServeError, naming the field."""
    if not spec.inputs:
        if spec.strength is not None:
            text = "strength means something only with an image among the inputs"
            raise GenServeError("invalid_request", text, param="strength")
        return (), 1.0
    if not card.edits:
        text = f"{card.name} draws from a prompt alone; leave the inputs out"
        raise GenServeError("unsupported", text, param="inputs")
    images = [each for each in spec.inputs if each.kind == "image"]
    masks = [each for each in spec.inputs if each.kind == "mask"]
    if len(images) != 1 or len(masks) > 1:
        text = f"{card.name} takes one image, and one mask at most; there are {len(images)} and {len(masks)}"
        raise GenServeError("unsupported", text, param="inputs")
    for index, each in enumerate(spec.inputs):
        if each.width * each.height > INPUT_PIXELS_MAX:
            text = f"inputs[{index}] has {each.width}x{each.height} pixels; at most {INPUT_PIXELS_MAX} are taken"
            raise GenServeError("too_large", text, param="inputs")
    sizes = {(each.width, each.height) for each in spec.inputs}
    if len(sizes) > 1:
        told = " and ".join(f"{width}x{height}" for width, height in sorted(sizes))
        raise GenServeError("invalid_request", f"image and mask must be of one size; these are {told}", param="inputs")
    usual = MASKED_STRENGTH_DEFAULT if masks else STRENGTH_DEFAULT
    inputs = tuple(
        InputPicture(kind=i.kind, format=i.format, width=i.width, height=i.height, bytes=i.bytes, sha256=i.sha256)
        for i in spec.inputs
    )
    return inputs, usual if spec.strength is None else spec.strength


def wanted_size(spec: JobSpec, inputs: tuple[InputPicture, ...], card: ModelCard) -> tuple[int, int]:
    """The size asked for; where none is, (0, 0), or with an image the model's size that is nearest to its shape."""
    if spec.width or spec.height or not inputs:
        return spec.width, spec.height
    return card.nearest_native(inputs[0].width, inputs[0].height, area=card.width * card.height)
