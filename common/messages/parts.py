"""The pieces that messages are made of: jobs, tokens, pictures, devices. Pure."""

from typing import Annotated, ClassVar, Literal, TypeAlias

from msgspec import Meta, Struct

PROMPT_CHARS_MAX = 8000
NEGATIVE_PROMPT_CHARS_MAX = 4000
SEED_MAX = 2**63 - 1
SIDE_MAX = 16384
STEPS_MAX = 1000
SUFFIXES = {"png": "png", "jpeg": "jpg", "webp": "webp"}  # of files, by picture format
INPUTS_MAX = 16  # pictures that a job starts from: one image and one mask so far
INPUT_BYTES_MAX = 25 * 1024 * 1024  # of one picture's file
INPUT_PIXELS_MAX = 4096 * 4096  # of one picture
PREVIEWS_MAX = 20  # partial pictures of one job

Rid = Annotated[str, Meta(min_length=1, max_length=64)]
JobId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
Label = Annotated[str, Meta(max_length=128)]
Text = Annotated[str, Meta(max_length=4000)]
WorkerId = Annotated[str, Meta(min_length=1, max_length=128)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
PartBytes = Annotated[int, Meta(ge=1, le=512 * 1024)]
Parts = Annotated[tuple[PartBytes, ...], Meta(max_length=128)]
ShownState: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
Format: TypeAlias = Literal["png", "jpeg", "webp"]
Quality = Annotated[int, Meta(ge=1, le=100)]
Side = Annotated[int, Meta(ge=1, le=SIDE_MAX)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Seed = Annotated[int, Meta(ge=0, le=SEED_MAX)]
# of the W3C's trace context, version 00; '': none
TraceParent = Annotated[str, Meta(pattern=r"^(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})?$")]


class Message(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every message is. `NAME` is its ASCII name on the wire."""

    NAME: ClassVar[bytes]


class InputPicture(Struct, frozen=True, kw_only=True):
    """A picture that a job starts from. Its pixels are those shown: with its EXIF orientation applied."""

    kind: Literal["image", "mask"]
    format: Format
    width: Side
    height: Side
    bytes: Annotated[int, Meta(ge=1, le=INPUT_BYTES_MAX)]  # its file, in the payload
    sha256: Sha256


class InputSpec(InputPicture, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same as a client says it."""


class JobSpec(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One picture as a client asks for it. What is left out is the model's own default."""

    prompt: Annotated[str, Meta(min_length=1, max_length=PROMPT_CHARS_MAX)]
    negative_prompt: Annotated[str, Meta(max_length=NEGATIVE_PROMPT_CHARS_MAX)] = ""
    model: Label = ""  # empty: the router's default model
    width: Annotated[int, Meta(ge=0, le=SIDE_MAX)] = 0  # pixels; 0 for both: the model's default
    height: Annotated[int, Meta(ge=0, le=SIDE_MAX)] = 0
    steps: Annotated[int, Meta(ge=0, le=STEPS_MAX)] = 0  # denoising steps; 0: the model's default
    guidance_scale: Annotated[float, Meta(ge=0, le=100)] | None = None
    true_cfg_scale: Annotated[float, Meta(ge=1, le=100)] | None = None  # only with a negative prompt
    seed: Seed | None = None  # None: the router draws one
    priority: Annotated[int, Meta(ge=-10, le=10)] = 0  # higher first
    client: Label = ""  # whom to count this job to, for fair shares and the logs
    save: bool = False  # also keep a copy in the daemon's output folder
    format: Format = "png"
    quality: Quality | None = None  # of a jpeg or webp; None: 90; a webp of 100 is lossless
    # what it starts from: their files are the payload, one after the other, each beginning with a new frame
    inputs: Annotated[tuple[InputSpec, ...], Meta(max_length=INPUTS_MAX)] = ()
    strength: Annotated[float, Meta(gt=0, le=1)] | None = None  # how far to leave the image; only with one
    # partial pictures while it is drawn, spread evenly over the steps; the last step brings the picture itself
    previews: Annotated[int, Meta(ge=0, le=PREVIEWS_MAX)] = 0
    # seconds from acceptance within which the picture must be there; None: router.job_deadline_s
    deadline_s: Annotated[float, Meta(gt=0, le=1e7)] | None = None


class JobOrder(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One picture as the router orders it: every choice made."""

    prompt: Annotated[str, Meta(max_length=PROMPT_CHARS_MAX)]
    negative_prompt: Annotated[str, Meta(max_length=NEGATIVE_PROMPT_CHARS_MAX)]
    model: Label
    width: Side  # of the picture delivered
    height: Side
    drawn_width: Side  # of the picture the model draws; enlarged where smaller than asked
    drawn_height: Side
    steps: Annotated[int, Meta(ge=1, le=STEPS_MAX)]
    guidance_scale: Annotated[float, Meta(ge=0, le=100)]
    true_cfg_scale: Annotated[float, Meta(ge=1, le=100)]  # 1: no second pass for the negative prompt
    seed: Seed
    priority: Annotated[int, Meta(ge=-10, le=10)]
    client: Label
    save: bool
    previews: Annotated[int, Meta(ge=0, le=PREVIEWS_MAX)] = 0
    format: Format = "png"
    quality: Quality | None = None
    inputs: Annotated[tuple[InputPicture, ...], Meta(max_length=INPUTS_MAX)] = ()
    strength: Annotated[float, Meta(gt=0, le=1)] = 1.0

    @property
    def drawn_steps(self) -> int:
        """The steps that are drawn: of a schedule of `steps`, what `strength` leaves, as diffusers counts them."""
        if not self.inputs:
            return self.steps
        return self.steps - int(max(self.steps - min(self.steps * self.strength, self.steps), 0))


class Terms(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How much its owner may have: said of a job by a gateway, which knows the key that asks. 0 is no bound."""

    weight: Annotated[float, Meta(ge=0.01, le=100)] = 1.0  # of the owner's fair share, whatever its clients' labels
    jobs_max: Count = 0  # waiting and running at one time
    gpu_seconds_per_minute: Seconds = 0.0


class Token(Struct, frozen=True, kw_only=True):
    """The right to end a job: its id and the number of the dispatch. Stale ones are fenced."""

    job_id: JobId
    dispatch: Annotated[int, Meta(ge=1, le=2**31)]


class HeldToken(Struct, frozen=True, kw_only=True):
    """A token in a daemon's hands, and how far it has come: waiting, running or ended."""

    token: Token
    stage: Annotated[str, Meta(pattern="^(waiting|running|ended)$")]


class Note(Struct, frozen=True, kw_only=True):
    """Something the reader should know although nothing failed, e.g. code 'prompt_cut'."""

    code: Label
    message: Text


class ErrorInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A failure as it is told: see common/errors.py for what each code implies."""

    code: Label
    message: Text
    fault: Label = ""
    retryable: bool = False
    next_step: Text = ""


class Picture(Struct, frozen=True, kw_only=True):
    """What the payload of a DONE or RESULT is, and that of a PROGRESS with a preview."""

    format: Label  # 'png', 'jpeg' or 'webp'
    width: int
    height: int
    drawn_width: int
    drawn_height: int
    bytes: Count
    sha256: Sha256


class Timings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a job's seconds went inside the engine."""

    encode_s: Seconds = 0.0  # prompt to embeddings
    denoise_s: Seconds = 0.0  # all steps
    preview_s: Seconds = 0.0  # partial pictures, between them
    decode_s: Seconds = 0.0  # latents to pixels
    save_s: Seconds = 0.0  # pixels to file bytes
    total_s: Seconds = 0.0


class DeviceInfo(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The device of one daemon, as it is built."""

    device: Label  # 'cuda:0', 'cpu', 'cpu:1': unique on its host
    kind: Annotated[str, Meta(pattern="^(cuda|cpu)$")]
    name: Label = ""  # as the driver or the processor calls itself
    uuid: Label = ""
    total_mb: Count = 0  # MiB: the GPU's memory; on a CPU, the host's


class DeviceLoad(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The device's memory just now, MiB, as the engine process sees it; and how busy it is."""

    allocated_mb: Count = 0  # in tensors; on a CPU, resident in the engine process
    cached_mb: Count = 0  # reserved by torch's allocator beyond that
    free_mb: Count = 0
    utilization_percent: Annotated[int, Meta(ge=0, le=100)] | None = None  # of the GPU's time, by anyone; None: unknown
