"""Every setting, declared once: its section, type, unit, bounds, default and description.

What the values are used for, and where they come from, is not known here.
"""

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct

OLDER_NAMES = {
    "FLUX_GPUS": ("up", "gpus"),
    "FLUX_MODEL_PATH": ("gpu_daemon", "model_path"),
    "SAVE_TEST_IMAGES": ("gpu_daemon", "save_images"),
}


def _of(description: str, **bounds: Any) -> Meta:
    return Meta(description=description, **bounds)


_positive_s = {"gt": 0, "le": 1e7}
_PORT = r"(\d{1,4}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])"  # ZeroMQ would take 65536 for 0
Endpoint = Annotated[str, Meta(pattern=rf"^tcp://[^\s/]+:{_PORT}$", examples=["tcp://127.0.0.1:12412"])]

HostName = Annotated[str, Meta(pattern=r"^(\*|[A-Za-z0-9._-]+)$", examples=["pictures.example.org"])]
Origin = Annotated[str, Meta(pattern=r"^https?://[a-z0-9.\-\[\]:]+$", examples=["https://studio.example.org"])]


class Section(Struct, frozen=True, kw_only=True):
    """One table of settings."""

    SECTION: ClassVar[str]


class LogSettings(Section, frozen=True, kw_only=True):
    """How a process logs."""

    SECTION = "log"
    level: Annotated[Literal["debug", "info", "warning", "error"], _of("least severity written")] = "info"
    format: Annotated[
        Literal["auto", "json", "console"], _of("auto: readable on a terminal, else one JSON object a line")
    ] = "auto"


class RouterSettings(Section, frozen=True, kw_only=True):
    """The router's."""

    SECTION = "router"
    client_endpoint: Annotated[Endpoint, _of("where clients connect")] = "tcp://127.0.0.1:12412"
    worker_endpoint: Annotated[Endpoint, _of("where GPU daemons connect")] = "tcp://127.0.0.1:12413"
    server_key_file: Annotated[
        str,
        _of(
            "the router's key, made by genserve keys init; empty: $CREDENTIALS_DIRECTORY/server.key, "
            "else no keys and loopback only"
        ),
    ] = ""
    peers_file: Annotated[str, _of("whom a router with a key lets in; kept by genserve keys", min_length=1)] = (
        "/etc/genserve/peers.toml"
    )
    state_dir: Annotated[
        str,
        _of("folder of the journal and pictures; empty: $STATE_DIRECTORY, else ~/.local/state/genserve/CLIENT_PORT"),
    ] = ""
    journal: Annotated[
        Literal["sqlite", "memory"], _of("where accepted jobs are kept; memory: a restart forgets them")
    ] = "sqlite"
    disk_free_min_mb: Annotated[int, _of("MiB free on state_dir below which new jobs are refused", ge=0, le=10**9)] = (
        256
    )
    journal_reserve_mb: Annotated[
        int, _of("MiB set aside so that ends and cancels are written even on a full disk", ge=1, le=10_000)
    ] = 16
    gpu_queue_size: Annotated[int, _of("jobs planned to wait for one GPU", ge=0, le=10_000)] = 5
    global_queue_size: Annotated[int, _of("further jobs that may wait", ge=0, le=1_000_000)] = 50
    global_queue_reserve: Annotated[
        int, _of("places beyond these for clients that have less than their equal share", ge=0, le=1_000_000)
    ] = 10
    default_model: Annotated[str, _of("model of jobs that name none; empty: the first one registered")] = ""
    heartbeat_interval_s: Annotated[float, _of("seconds between heartbeats", **_positive_s)] = 1.0
    suspect_after_s: Annotated[float, _of("silence after which a GPU is sent nothing new", **_positive_s)] = 3.0
    dead_after_s: Annotated[float, _of("silence after which a GPU's jobs go elsewhere", **_positive_s)] = 10.0
    prefetch_s: Annotated[float, _of("how long before a job's end the next one is sent", ge=0, le=60)] = 0.5
    job_deadline_s: Annotated[float, _of("seconds from acceptance after which a job fails", **_positive_s)] = 3600.0
    attempts_max: Annotated[int, _of("times a job is started before it fails for good", ge=1, le=100)] = 3
    retry_backoff_s: Annotated[float, _of("wait before a job's second retry; doubles", ge=0, le=3600)] = 2.0
    result_ttl_s: Annotated[float, _of("seconds an ended job and its picture are kept", **_positive_s)] = 86_400.0
    results_mb_max: Annotated[int, _of("MiB of pictures kept; the oldest go first", ge=64, le=10**9)] = 1024
    inputs_mb_max: Annotated[
        int, _of("MiB of pictures kept that jobs start from; beyond that such jobs are refused", ge=64, le=10**9)
    ] = 1024
    ended_jobs_max: Annotated[int, _of("ended jobs remembered; the oldest go first", ge=1, le=10**8)] = 20_000
    dead_letter_ttl_s: Annotated[float, _of("seconds a poison job is kept for a look", **_positive_s)] = 604_800.0
    dead_letters_max: Annotated[int, _of("poison jobs kept; the oldest go first", ge=1, le=10**6)] = 1000
    key_ttl_s: Annotated[float, _of("seconds an idempotency key is remembered", **_positive_s)] = 86_400.0
    watch_ttl_s: Annotated[float, _of("seconds a WATCH holds without being repeated", **_positive_s)] = 15.0
    watches_per_job_max: Annotated[int, _of("watchers of one job", ge=1, le=10_000)] = 64
    drain_s: Annotated[float, _of("seconds accepted jobs may take to end when stopping", ge=0, le=1e6)] = 10.0
    progress_interval_s: Annotated[float, _of("least seconds between two PROGRESS of a job", ge=0, le=60)] = 0.25
    traces_endpoint: Annotated[
        str,
        _of(
            "URL that traces go to as OTLP over HTTP, e.g. http://127.0.0.1:4318/v1/traces; "
            "empty: OpenTelemetry's own variables, else none",
            pattern=r"^(https?://\S+)?$",
        ),
    ] = ""

    def __post_init__(self) -> None:
        if not self.heartbeat_interval_s < self.suspect_after_s < self.dead_after_s:
            raise ValueError("heartbeat_interval_s < suspect_after_s < dead_after_s must hold")


class GpuDaemonSettings(Section, frozen=True, kw_only=True):
    """A GPU daemon's, its engine process included."""

    SECTION = "gpu_daemon"
    router_endpoint: Annotated[Endpoint, _of("the router's worker endpoint")] = "tcp://127.0.0.1:12413"
    key_file: Annotated[
        str, _of("this host's daemon key; empty: $CREDENTIALS_DIRECTORY/daemon.key, else it connects without")
    ] = ""
    device: Annotated[
        str,
        _of(
            "cuda:N or N, cpu or cpu:N; empty: cuda:0, or cpu without a GPU",
            pattern=r"^((cuda:)?\d{1,4}|cpu(:\d{1,4})?)?$",
            examples=["cuda:0", "cpu", "cpu:1"],
        ),
    ] = ""
    worker_id: Annotated[
        str,
        _of("this daemon's name in the fleet; empty: host/device, with a key the key's name/device", max_length=128),
    ] = ""
    engine: Annotated[Literal["flux", "noop"], _of("noop draws flat colours: measures the service itself")] = "flux"
    noop_step_s: Annotated[float, _of("seconds a step of the noop engine takes", ge=0, le=60)] = 0.0
    model_path: Annotated[str, _of("a FLUX folder in diffusers format; empty: the embedded model")] = ""
    model_name: Annotated[str, _of("the model's name to clients; empty: from its folder", max_length=128)] = ""
    cpu_threads: Annotated[
        int, _of("threads of the engine's arithmetic on a CPU; pictures depend on it", ge=1, le=256)
    ] = 2
    offload: Annotated[Literal["auto", "on", "off"], _of("move model parts to the GPU only while they run")] = "auto"
    offload_below_gb: Annotated[float, _of("auto: GPUs with less memory (GiB) offload", ge=0, le=10_000)] = 16.0
    empty_cache: Annotated[Literal["idle", "job", "never"], _of("when unused GPU memory is released")] = "idle"
    idle_after_s: Annotated[float, _of("seconds without a job that count as idle", **_positive_s)] = 5.0
    job_timeout_s: Annotated[float, _of("seconds a job may run", **_positive_s)] = 600.0
    job_stop_grace_s: Annotated[
        float, _of("seconds an engine has to stop between steps before it is killed", **_positive_s)
    ] = 10.0
    engine_start_timeout_s: Annotated[float, _of("seconds an engine may take to load", **_positive_s)] = 900.0
    drain_s: Annotated[float, _of("seconds a running job may take to finish when draining", ge=0, le=1e6)] = 60.0
    save_images: Annotated[bool, _of("also save each picture under output_dir")] = False
    output_dir: Annotated[str, _of("folder for saved pictures", min_length=1)] = "output"


class GatewaySettings(Section, frozen=True, kw_only=True):
    """The gateway's."""

    SECTION = "gateway"
    host: Annotated[str, _of("address that HTTP listens on", min_length=1)] = "127.0.0.1"
    port: Annotated[int, _of("port that HTTP listens on; 0: any free one", ge=0, le=65535)] = 12411
    router_endpoint: Annotated[Endpoint, _of("the router's client endpoint")] = "tcp://127.0.0.1:12412"
    key_file: Annotated[
        str, _of("the gateway's key; empty: $CREDENTIALS_DIRECTORY/gateway.key, else it connects without")
    ] = ""
    auth: Annotated[
        Literal["auto", "keys", "none"],
        _of("who may use HTTP: keys: who has one; none: whoever reaches it; auto: none on loopback, else keys"),
    ] = "auto"
    http_keys_file: Annotated[str, _of("the keys of HTTP, hashed; kept by genserve keys", min_length=1)] = (
        "/etc/genserve/http-keys.toml"
    )
    allowed_hosts: Annotated[
        tuple[HostName, ...],
        _of(
            'host names beside this machine\'s own under which HTTP answers where it asks for no keys; ["*"]: any '
            "name, also one by which a web page could reach it behind its visitor's back",
            max_length=64,
            examples=['["pictures.example.org"]'],
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[Origin, ...],
        _of(
            "web pages of other origins that may use HTTP from a browser; empty: none",
            max_length=64,
            examples=['["https://studio.example.org"]'],
        ),
    ] = ()
    model_aliases: Annotated[
        dict[str, str],
        _of(
            "names that mean another model; '' is the default model; one that ends in * stands for all that begin so",
            examples=['{"dall-e-3": "flux1-dev"}'],
        ),
    ] = msgspec.field(default_factory=lambda: {"gpt-image-*": "", "chatgpt-image-*": "", "dall-e-*": ""})
    embedded_model_aliases: Annotated[
        tuple[str, ...],
        _of("names that mean the default model while only the embedded model is served", examples=['["flux1-dev"]']),
    ] = ("flux1-dev",)
    body_bytes_max: Annotated[int, _of("bytes of a request body", ge=1024, le=2**30)] = 1_048_576
    upload_bytes_max: Annotated[int, _of("bytes of a request body that holds picture files", ge=1024, le=2**30)] = (
        54_525_952
    )
    uploads_mb_max: Annotated[
        int, _of("MiB of request bodies with picture files that are held at one time", ge=1, le=1_000_000)
    ] = 256
    connections_max: Annotated[int, _of("connections open at one time", ge=1, le=1_000_000)] = 2048
    event_streams_max: Annotated[int, _of("of these, those that are streams of events", ge=0, le=1_000_000)] = 1500
    head_timeout_s: Annotated[
        float, _of("seconds a connection has for the head of its next request, idle time included", **_positive_s)
    ] = 75.0
    body_timeout_s: Annotated[float, _of("seconds a request's body may take to arrive", **_positive_s)] = 30.0
    upload_timeout_s: Annotated[
        float, _of("seconds a request's body with picture files may take to arrive", **_positive_s)
    ] = 120.0
    send_timeout_s: Annotated[float, _of("seconds a client may take to read its answer", **_positive_s)] = 60.0
    public_url: Annotated[
        str,
        _of(
            "how clients reach this gateway, for links to pictures, e.g. https://pictures.example.org; "
            "empty: as the Host of the request says",
            pattern=r"^(https?://[^\s/?#]+)?$",
        ),
    ] = ""
    link_ttl_s: Annotated[float, _of("seconds that a link to a picture is good for", **_positive_s)] = 3600.0
    link_secret_file: Annotated[
        str,
        _of(
            "the secret that signs links to pictures, 64 hexadecimal digits; empty: "
            "$CREDENTIALS_DIRECTORY/link.secret, else one that is made in $STATE_DIRECTORY or ~/.local/state/genserve"
        ),
    ] = ""
    webhook_hosts: Annotated[
        tuple[str, ...],
        _of("hosts, or host:port, where webhooks may be; empty: none", examples=['["hooks.example.org"]']),
    ] = ()
    wait_s: Annotated[float, _of("seconds a synchronous request waits for its pictures", **_positive_s)] = 3600.0
    cancel_on_disconnect: Annotated[
        bool, _of("cancel a synchronous request's jobs when its client hangs up; never those with an Idempotency-Key")
    ] = True
    router_timeout_s: Annotated[float, _of("seconds the router may take to answer", **_positive_s)] = 10.0
    drain_s: Annotated[float, _of("seconds open requests may take to finish when stopping", ge=0, le=1e6)] = 60.0
    traces_endpoint: Annotated[
        str,
        _of(
            "URL that traces go to as OTLP over HTTP, e.g. http://127.0.0.1:4318/v1/traces; "
            "empty: OpenTelemetry's own variables, else none",
            pattern=r"^(https?://\S+)?$",
        ),
    ] = ""


class ClientSettings(Section, frozen=True, kw_only=True):
    """Those of the commands that ask the router themselves: generate, status, jobs and the like."""

    SECTION = "client"
    key_file: Annotated[
        str,
        _of("the key they connect with; empty: /etc/genserve/keys/client.key where you may read it, else none"),
    ] = ""


class UpSettings(Section, frozen=True, kw_only=True):
    """Those of `genserve up`, which starts all parts on one machine."""

    SECTION = "up"
    gpus: Annotated[
        str, _of("devices, e.g. '0, 1' or 'cuda:0,cuda:1' or 'cpu,cpu'; empty: every GPU, else the CPU")
    ] = ""


SECTIONS: dict[str, type[Section]] = {
    s.SECTION: s for s in (LogSettings, RouterSettings, GpuDaemonSettings, GatewaySettings, ClientSettings, UpSettings)
}
