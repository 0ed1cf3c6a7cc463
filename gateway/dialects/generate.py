"""The older dialect's POST /generate, POST /generate/upload and GET /task/{id}: its field names, with true values.

Pure. A failure is the one error body with the older fields `success`, `message` and `task_id` beside it.
"""

from typing import Annotated, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from common.errors import GenServeError
from common.messages import JobSpec, JobView, Note
from gateway.dialects import body, errors
from gateway.dialects.body import show
from gateway.dialects.inputs import Inputs, read_inputs
from gateway.dialects.multipart import Form
from gateway.dialects.picture import Drawn, picture_facts

PARAMS = {  # JobSpec's name: this dialect's
    "steps": "num_inference_steps",
    "guidance_scale": "cfg",
    "inputs": "input_image",
}
FILES = ("input_image", "mask_image")  # fields of the form that are files
MODES: dict[str, tuple[str, ...]] = {"text2img": (), "img2img": FILES[:1], "fill": FILES}  # with the files they need
NO_INPUTS = Inputs()
_NO = frozenset({"", "0", "no", "off", "false", "none"})


class GenerateRequest(body.Body, frozen=True, kw_only=True):
    """The body of POST /generate, and what POST /generate/upload has in common with it."""

    prompt: body.Prompt
    model: body.ModelName = ""
    model_id: body.ModelName = ""  # the same by another name
    num_inference_steps: body.Steps | None = None
    seed: body.Seed | None = None
    cfg: body.Guidance | None = None
    height: body.Side | None = None
    width: body.Side | None = None
    priority: body.Priority = 0
    deadline_s: body.Deadline | None = None
    save_disk_path: bool | str = False  # yes or no, never a path

    @property
    def model_asked(self) -> str:
        """The model's name by either field."""
        return self.model or self.model_id


R = TypeVar("R", bound=GenerateRequest)


class UploadRequest(GenerateRequest, frozen=True, kw_only=True):
    """The text fields of POST /generate/upload; the files stand beside them: input_image, and mask_image."""

    mode: str = ""  # by the files that there are
    strength: Annotated[float, Meta(gt=0, le=1)] | None = None


class Generated(Struct, frozen=True, kw_only=True):
    """The answer with the picture; `output` and `image_base64` are the same, as ever."""

    success: bool = True
    message: str = "the picture is drawn"
    task_id: str
    model: str
    device: str
    gpu_id: int | None
    worker: str
    elapsed_time: str  # '12.34s', from acceptance to the end
    output: bytes
    image_base64: bytes
    error: None = None
    seed: int
    num_inference_steps: int
    cfg: float
    width: int
    height: int
    drawn_width: int
    drawn_height: int
    warnings: tuple[Note, ...]


class NotGenerated(Struct, frozen=True, kw_only=True):
    """A failure: the one error body, and this dialect's own fields beside it."""

    success: bool = False
    message: str
    task_id: str | None
    error: errors.ErrorFacts


class Task(Struct, frozen=True, kw_only=True):
    """How a job stands; once it has ended, also what POST /generate answers. Times in wall seconds since 1970."""

    task_id: str
    status: str
    model: str
    device: str | None
    worker: str | None
    step: int
    num_inference_steps: int
    position: int  # 1 starts next; 0 waits no more
    eta_s: float | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    attempts: int
    error: errors.ErrorFacts | None = None
    warnings: tuple[Note, ...]
    success: bool | UnsetType = UNSET
    message: str | UnsetType = UNSET
    gpu_id: int | UnsetType | None = UNSET
    elapsed_time: str | UnsetType = UNSET
    output: bytes | UnsetType = UNSET
    image_base64: bytes | UnsetType = UNSET
    seed: int | UnsetType = UNSET
    cfg: float | UnsetType = UNSET
    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    drawn_width: int | UnsetType = UNSET
    drawn_height: int | UnsetType = UNSET


def read_request(data: bytes) -> GenerateRequest:
    """The checked request. Raises GenServeError invalid_request; `param` names the field."""
    return _checked(body.read(data, GenerateRequest))


def read_upload(form: Form) -> tuple[UploadRequest, Inputs]:
    """The checked form and its files. Raises GenServeError invalid_request or unsupported; `param` names the field."""
    request = _checked(body.read_form(form.fields, UploadRequest))
    files: dict[str, bytes] = {}
    for name, given in form.files.items():
        if len(given) > 1:
            raise GenServeError("invalid_request", f"{name}: one file is taken; there are {len(given)}", param=name)
        files[name] = given[0]
    mode = request.mode or next(mode for mode, needed in MODES.items() if set(files) <= set(needed))
    if mode not in MODES:
        text = f"mode = {show(mode)} is not done here; there are {', '.join(MODES)}"
        raise GenServeError("unsupported", text, param="mode")
    for name in FILES:
        if name in MODES[mode] and name not in files:
            raise GenServeError("invalid_request", f"mode = {mode!r} needs the file {name}", param=name)
        if name in files and name not in MODES[mode]:
            raise GenServeError("invalid_request", f"mode = {mode!r} goes without the file {name}", param=name)
    if not files:
        return structs.replace(request, strength=None), NO_INPUTS  # it was always sent, and meant nothing then
    return request, read_inputs(files["input_image"], files.get("mask_image"), names=FILES)


def _checked(request: R) -> R:
    body.not_blank("prompt", request.prompt)
    if request.model and request.model_id and request.model != request.model_id:
        raise GenServeError("invalid_request", "model and model_id name two models; leave one out", param="model_id")
    if (request.width is None) != (request.height is None):
        missing = "width" if request.width is None else "height"
        raise GenServeError(
            "invalid_request", f"{missing} is missing: give width and height, or neither", param=missing
        )
    return request


def to_job(
    request: GenerateRequest, *, model: str, client: str, random_seed: int, inputs: Inputs = NO_INPUTS
) -> JobSpec:
    """The job; `random_seed` is for a request that names none."""
    save = request.save_disk_path
    return JobSpec(
        prompt=request.prompt,
        model=model,
        width=request.width or 0,
        height=request.height or 0,
        steps=request.num_inference_steps or 0,
        guidance_scale=request.cfg,
        seed=random_seed if request.seed is None else request.seed,
        priority=request.priority,
        client=client,
        deadline_s=request.deadline_s,
        save=save if isinstance(save, bool) else save.strip().lower() not in _NO,
        inputs=inputs.specs,
        strength=request.strength if isinstance(request, UploadRequest) else None,
    )


def to_response(drawn: Drawn) -> Generated:
    """The answer with the picture."""
    job, facts = drawn.job, picture_facts(drawn.job, drawn.picture)
    return Generated(
        task_id=job.job_id,
        model=job.model,
        device=job.device,
        gpu_id=gpu_id(job.device),
        worker=job.worker_id,
        elapsed_time=f"{facts.elapsed_s:.2f}s",
        output=drawn.data,
        image_base64=drawn.data,
        seed=facts.seed,
        num_inference_steps=facts.steps,
        cfg=facts.guidance_scale,
        width=drawn.picture.width,
        height=drawn.picture.height,
        drawn_width=drawn.picture.drawn_width,
        drawn_height=drawn.picture.drawn_height,
        warnings=job.notes,
    )


def to_error(error: GenServeError) -> NotGenerated:
    """A failure."""
    facts = errors.facts(error)
    return NotGenerated(message=facts.message, task_id=getattr(error, "job_id", None), error=facts)


def task(job: JobView, ended: Drawn | GenServeError | None) -> Task:
    """GET /task/{id}: `ended` is its picture or its failure, None while it goes on."""
    view = Task(
        task_id=job.job_id,
        status=job.state,
        model=job.model,
        device=job.device or None,
        worker=job.worker_id or None,
        step=job.step,
        num_inference_steps=job.steps,
        position=job.position,
        eta_s=job.eta_s,
        created_at=job.created_at,
        started_at=job.started_at or None,
        ended_at=job.ended_at or None,
        attempts=job.attempts,
        warnings=job.notes,
    )
    if ended is None:
        return view
    more = to_response(ended) if isinstance(ended, Drawn) else to_error(ended)
    return structs.replace(view, **structs.asdict(more))


def gpu_id(device: str) -> int | None:
    """The N of 'cuda:N'; None on a CPU."""
    kind, _, number = device.partition(":")
    return int(number) if kind == "cuda" and number.isdecimal() else None
