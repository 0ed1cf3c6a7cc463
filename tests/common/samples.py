"""One message of every kind, as the tests send them."""

from msgspec import structs

from common.messages import (
    Accepted,
    Bye,
    CancelJob,
    Cancelled,
    CancelToken,
    Credit,
    DeadLettersQuery,
    DeadLettersReply,
    DeviceInfo,
    DeviceLoad,
    Dispatch,
    Done,
    Drain,
    Draining,
    ErrorInfo,
    ErrorReply,
    Fail,
    Failed,
    FailureView,
    Fenced,
    Fetch,
    Heartbeat,
    HeldToken,
    Histogram,
    InputPicture,
    InputSpec,
    JobMoment,
    JobOrder,
    JobProgress,
    JobQuery,
    JobReply,
    JobSpec,
    JobsQuery,
    JobsReply,
    JobView,
    KeysQuery,
    KeysReply,
    KeyView,
    Message,
    ModelView,
    Note,
    Picture,
    Ping,
    Pong,
    Register,
    Rejected,
    Requeue,
    Result,
    ResultAck,
    Resync,
    Returned,
    RouterLimits,
    RouterMeasures,
    RouterStats,
    Started,
    StatusQuery,
    StatusReply,
    Submit,
    Timings,
    Token,
    Watch,
    Welcome,
    WorkerProgress,
    WorkerView,
)
from common.models import ModelCard

JOB_ID = "0123456789abcdef" * 2
TOKEN = Token(job_id=JOB_ID, dispatch=2)
SPEC = JobSpec(
    prompt="一只红色的狐狸, a red fox 🦊",
    negative_prompt="blur",
    model="flux1-dev",
    width=1024,
    height=768,
    steps=28,
    guidance_scale=3.5,
    true_cfg_scale=4.0,
    seed=2**63 - 1,
    priority=-3,
    client="studio",
    save=True,
    previews=3,
    format="webp",
    quality=80,
    deadline_s=90.5,
)
INPUT = InputSpec(kind="image", format="jpeg", width=640, height=480, bytes=3, sha256="cd" * 32)
MASK = InputSpec(kind="mask", format="png", width=640, height=480, bytes=2, sha256="ef" * 32)
ORDER = JobOrder(
    prompt="a red fox",
    negative_prompt="",
    model="flux1-dev",
    width=1024,
    height=1024,
    drawn_width=128,
    drawn_height=128,
    steps=28,
    guidance_scale=3.5,
    true_cfg_scale=1.0,
    seed=7,
    priority=0,
    client="",
    save=False,
)
PICTURE = Picture(format="png", width=64, height=64, drawn_width=64, drawn_height=64, bytes=5, sha256="ab" * 32)
TIMINGS = Timings(encode_s=0.1, denoise_s=1.5, preview_s=0.25, decode_s=0.2, save_s=0.05, total_s=2.1)
DEVICE = DeviceInfo(device="cuda:0", kind="cuda", name="NVIDIA H200", uuid="GPU-1", total_mb=143_771)
LOAD = DeviceLoad(allocated_mb=34_000, cached_mb=100, free_mb=100_000, utilization_percent=97)
CARD = ModelCard(name="flux1-dev")
NOTE = Note(code="enlarged", message="drawn at 128x128 and enlarged")
ERROR = ErrorInfo(code="engine_died", message="the engine died", fault="server", retryable=True, next_step="again")
JOB = JobView(
    job_id=JOB_ID,
    state="running",
    model="flux1-dev",
    width=1024,
    height=1024,
    steps=28,
    seed=7,
    guidance_scale=3.5,
    priority=0,
    client="",
    deadline_at=0.0,
    created_at=1.5,
    started_at=2.5,
    ended_at=0.0,
    step=3,
    position=0,
    eta_s=4.5,
    attempts=1,
    worker_id="host/cuda:0",
    device="cuda:0",
    notes=(NOTE,),
    error=None,
    picture=None,
    timings=None,
)
WORKER = WorkerView(
    worker_id="host/cuda:0",
    host="host",
    device=DEVICE,
    load=LOAD,
    state="ready",
    detail="",
    models=("flux1-dev",),
    busy=True,
    job_id=JOB_ID,
    step=3,
    steps=28,
    queue_size=2,
    credit=1,
    granted_total=9,
    dispatched_total=8,
    done_total=7,
    failed_total=0,
    last_used_at=1.0,
    step_s=0.17,
    job_timeout_s=600.0,
    version="0.1.0",
    pid=4242,
)
STATS = RouterStats(
    uptime_s=1.0, submitted_total=9, done_total=7, failed_total=0, cancelled_total=0, rejected_total=1,
    queue_full_total=1, protocol_errors_total=2, retried_total=0, queued=1, running=1, overflow=0,
)  # fmt: skip
LIMITS = RouterLimits(
    gpu_queue_size=5, global_queue_size=50, job_deadline_s=3600.0, result_ttl_s=3600.0, attempts_max=3
)
TRACEPARENT = f"00-{'4b' * 16}-{'00f067aa0ba902b7'}-01"
MEASURES = RouterMeasures(
    started_at=1.5, bounds_s=(0.1, 1.0),
    stages={name: Histogram(counts=(1, 2, 0), sum_s=1.25) for name in ("queue", "whole")},
    failed={"poison": 1}, rejected={"queue_full": 1}, steps_total=28, oldest_wait_s=0.5,
)  # fmt: skip
PAYLOAD = (b"abc", b"de")

CLIENT: list[Message] = [
    Submit(rid="1", job=SPEC, key="k", digest="d" * 64, traceparent=TRACEPARENT),
    Submit(rid="1", job=JobSpec(prompt="x")),
    Submit(rid="1", job=JobSpec(prompt="x", inputs=(INPUT, MASK), strength=0.5), parts=(3, 2)),
    CancelJob(rid="2", job_id=JOB_ID),
    Watch(rid="3", job_id=JOB_ID),
    JobQuery(rid="4", job_id=JOB_ID),
    Fetch(rid="5", job_id=JOB_ID, owner="somebody"),
    DeadLettersQuery(rid="8", letters_from=8),
    JobsQuery(rid="8", states=("queued", "running"), before=9, limit=3),
    Requeue(rid="9", job_id=JOB_ID),
    StatusQuery(rid="6", workers_from=48),
    KeysQuery(rid="6", keys_from=256),
    Ping(rid="7"),
    ErrorReply(code="protocol_error", message="what?"),
]
TO_CLIENT: list[Message] = [
    Accepted(rid="1", job_id=JOB_ID, job=JOB),
    Rejected(rid="1", code="queue_full", message="full", retry_after_s=2.0),
    JobProgress(rid="1", job_id=JOB_ID, state="running", step=1, steps=2),
    JobProgress(
        rid="1", job_id=JOB_ID, state="running", step=1, steps=2, preview=PICTURE, preview_index=1, parts=(3, 2)
    ),
    Result(rid="1", job_id=JOB_ID, job=JOB, picture=PICTURE, parts=(3, 2)),
    Failed(rid="1", job_id=JOB_ID, job=JOB, error=ERROR),
    Cancelled(rid="1", job_id=JOB_ID, job=JOB),
    JobReply(rid="1", job_id=JOB_ID, job=JOB, history=(JobMoment(at=1.5, event="accepted"),)),
    DeadLettersReply(rid="8", letters=(JOB,), letters_total=9),
    JobsReply(rid="8", jobs=(JOB,), next_before=7),
    StatusReply(
        rid="1", workers=(WORKER,), workers_total=1, models=(ModelView(card=CARD, workers=1, model_path="/m"),),
        default_model="flux1-dev", stats=STATS, limits=LIMITS,
        failures=(FailureView(at=1.5, job_id=JOB_ID, worker_id="host/cuda:0", code="poison", message="two engines"),),
        measures=MEASURES,
    ),
    KeysReply(rid="1", keys=(KeyView(name="host-b", role="daemon", connections=8, seen_at=1.5),), keys_total=1),
    ErrorReply(rid="1", code="not_found", message="no such job"),
    Pong(rid="1"),
]  # fmt: skip
WORKER_MESSAGES: list[Message] = [
    Register(
        worker_id="host/cuda:0", boot_id="b", nonce="n", host="host", device=DEVICE, models=(CARD,),
        tokens=(HeldToken(token=TOKEN, stage="running"),), version="0.1.0",
    ),
    Credit(epoch=1, granted_total=2),
    Started(epoch=1, token=TOKEN),
    WorkerProgress(epoch=1, token=TOKEN, step=1, steps=28, step_s=0.17),
    WorkerProgress(epoch=1, token=TOKEN, step=1, steps=28, preview=PICTURE, preview_index=1, parts=(3, 2)),
    Done(epoch=1, token=TOKEN, picture=PICTURE, parts=(3, 2), timings=TIMINGS, notes=(NOTE,)),
    Fail(epoch=1, token=TOKEN, code="out_of_memory", message="no room"),
    Returned(epoch=1, token=TOKEN, reason="draining"),
    Heartbeat(epoch=1, state="ready", load=LOAD, engine_pid=1),
    Draining(epoch=1),
    Bye(epoch=1),
]  # fmt: skip
TO_WORKER: list[Message] = [
    Welcome(nonce="n", epoch=1, heartbeat_interval_s=1.0, dead_after_s=10.0, keep=(TOKEN,), drop=()),
    Dispatch(epoch=1, token=TOKEN, job=ORDER, remaining_s=3600.0, traceparent=TRACEPARENT),
    Dispatch(
        epoch=1,
        token=TOKEN,
        remaining_s=1.0,
        parts=(3, 2),
        job=structs.replace(ORDER, strength=0.5, inputs=(InputPicture(**structs.asdict(INPUT)),)),
    ),
    CancelToken(token=TOKEN),
    ResultAck(token=TOKEN),
    Fenced(token=TOKEN),
    Drain(),
    Resync(),
]
