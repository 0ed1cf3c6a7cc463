"""A finished job as every dialect receives it, and the facts each of them tells of its picture. Pure."""

from msgspec import Struct, structs

from common.messages import JobView, Picture, Timings


class Drawn(Struct, frozen=True, kw_only=True):
    """A job that ended with a picture, and the picture's file bytes."""

    job: JobView
    picture: Picture
    data: bytes


class EngineSeconds(Struct, frozen=True, kw_only=True):
    """Where a job's seconds went inside the engine."""

    encode_s: float
    denoise_s: float
    preview_s: float
    decode_s: float
    save_s: float
    total_s: float


class PictureFacts(Struct, frozen=True, kw_only=True):
    """How one picture was made. `elapsed_s`: from acceptance to the end of the job."""

    job_id: str
    model: str
    seed: int
    steps: int
    guidance_scale: float
    size: str
    drawn_size: str  # smaller than `size` where the picture was enlarged
    device: str
    elapsed_s: float
    timings: EngineSeconds


def picture_facts(job: JobView, picture: Picture) -> PictureFacts:
    """The facts of one picture."""
    return PictureFacts(
        job_id=job.job_id,
        model=job.model,
        seed=job.seed,
        steps=job.steps,
        guidance_scale=job.guidance_scale,
        size=f"{picture.width}x{picture.height}",
        drawn_size=f"{picture.drawn_width}x{picture.drawn_height}",
        device=job.device,
        elapsed_s=round(max(0.0, job.ended_at - job.created_at), 6),
        timings=engine_seconds(job.timings or Timings()),
    )


def engine_seconds(timings: Timings) -> EngineSeconds:
    """All of them, zeros as well."""
    return EngineSeconds(**structs.asdict(timings))
