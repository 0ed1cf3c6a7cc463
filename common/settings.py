"""One frozen settings object a process: defaults < TOML file < environment < flags.

A bad or unknown key stops the start and says what would be right. Every setting is declared once,
here, with its unit, bounds and description. What the values are used for is not known here.

The TOML file is named by GENSERVE_CONFIG (else /etc/genserve/genserve.toml, where it exists) and has one
table a section: [log] [router] [gpu_daemon] [gateway] [up]. The environment variable of a key is
GENSERVE_<SECTION>_<KEY>; three older names go on working, see OLDER_NAMES.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

from common.errors import SettingsError

DEFAULT_FILE = Path("/etc/genserve/genserve.toml")
PREFIX = "GENSERVE_"
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
    ended_jobs_max: Annotated[int, _of("ended jobs remembered; the oldest go first", ge=1, le=10**8)] = 20_000
    dead_letter_ttl_s: Annotated[float, _of("seconds a poison job is kept for a look", **_positive_s)] = 604_800.0
    dead_letters_max: Annotated[int, _of("poison jobs kept; the oldest go first", ge=1, le=10**6)] = 1000
    key_ttl_s: Annotated[float, _of("seconds an idempotency key is remembered", **_positive_s)] = 86_400.0
    watch_ttl_s: Annotated[float, _of("seconds a WATCH holds without being repeated", **_positive_s)] = 15.0
    watches_per_job_max: Annotated[int, _of("watchers of one job", ge=1, le=10_000)] = 64
    drain_s: Annotated[float, _of("seconds accepted jobs may take to end when stopping", ge=0, le=1e6)] = 10.0
    progress_interval_s: Annotated[float, _of("least seconds between two PROGRESS of a job", ge=0, le=60)] = 0.25

    def __post_init__(self) -> None:
        if not self.heartbeat_interval_s < self.suspect_after_s < self.dead_after_s:
            raise ValueError("heartbeat_interval_s < suspect_after_s < dead_after_s must hold")


class GpuDaemonSettings(Section, frozen=True, kw_only=True):
    """A GPU daemon's, its engine process included."""

    SECTION = "gpu_daemon"
    router_endpoint: Annotated[Endpoint, _of("the router's worker endpoint")] = "tcp://127.0.0.1:12413"
    device: Annotated[
        str,
        _of(
            "cuda:N, cpu or cpu:N; empty: cuda:0, or cpu without a GPU",
            pattern=r"^(cuda:\d+|cpu(:\d+)?)?$",
            examples=["cuda:0", "cpu", "cpu:1"],
        ),
    ] = ""
    worker_id: Annotated[str, _of("this daemon's name in the fleet; empty: host/device", max_length=128)] = ""
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
    model_aliases: Annotated[
        dict[str, str],
        _of("names that mean another model; '' is the default model", examples=['{"dall-e-3": "flux1-dev"}']),
    ] = msgspec.field(
        default_factory=lambda: {
            "gpt-image-1": "",
            "gpt-image-1-mini": "",
            "gpt-image-1.5": "",
            "dall-e-2": "",
            "dall-e-3": "",
        }
    )
    embedded_model_aliases: Annotated[
        tuple[str, ...],
        _of("names that mean the default model while only the embedded model is served", examples=['["flux1-dev"]']),
    ] = ("flux1-dev",)
    body_bytes_max: Annotated[int, _of("bytes of a request body", ge=1024, le=2**30)] = 1_048_576
    connections_max: Annotated[int, _of("connections open at one time", ge=1, le=1_000_000)] = 512
    head_timeout_s: Annotated[
        float, _of("seconds a connection has for the head of its next request, idle time included", **_positive_s)
    ] = 75.0
    body_timeout_s: Annotated[float, _of("seconds a request's body may take to arrive", **_positive_s)] = 30.0
    send_timeout_s: Annotated[float, _of("seconds a client may take to read its answer", **_positive_s)] = 60.0
    wait_s: Annotated[float, _of("seconds a synchronous request waits for its pictures", **_positive_s)] = 3600.0
    cancel_on_disconnect: Annotated[
        bool, _of("cancel a synchronous request's jobs when its client hangs up; never those with an Idempotency-Key")
    ] = True
    router_timeout_s: Annotated[float, _of("seconds the router may take to answer", **_positive_s)] = 10.0
    drain_s: Annotated[float, _of("seconds open requests may take to finish when stopping", ge=0, le=1e6)] = 60.0


class UpSettings(Section, frozen=True, kw_only=True):
    """Those of `genserve up`, which starts all parts on one machine."""

    SECTION = "up"
    gpus: Annotated[
        str, _of("devices, e.g. '0, 1' or 'cuda:0,cuda:1' or 'cpu,cpu'; empty: every GPU, else the CPU")
    ] = ""


SECTIONS: dict[str, type[Section]] = {
    s.SECTION: s for s in (LogSettings, RouterSettings, GpuDaemonSettings, GatewaySettings, UpSettings)
}
S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Loaded(Generic[S]):
    """A process's settings, how it logs, and where each value came from ('router.port': 'flag')."""

    settings: S
    log: LogSettings
    sources: Mapping[str, str]


def load_settings(
    section: type[S],
    *,
    env: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
    log_flags: Mapping[str, Any] | None = None,
) -> Loaded[S]:
    """The settings of one process. A flag of value None is one not given.

    Raises SettingsError for a file that cannot be read, an unknown key or a bad value, in any section.
    """
    values: dict[str, dict[str, tuple[Any, str]]] = {name: {} for name in SECTIONS}
    _read_file(env, values)
    _read_environment(env, values)
    for name, given in ((section.SECTION, flags), (LogSettings.SECTION, log_flags)):
        for key, value in (given or {}).items():
            if value is not None:
                values[name][key] = (value, f"--{key.replace('_', '-')}")
    built = {name: _build(SECTIONS[name], found) for name, found in values.items()}
    sources = {
        f"{name}.{key}": values[name][key][1] if key in values[name] else "default"
        for name in (section.SECTION, LogSettings.SECTION)
        for key in SECTIONS[name].__struct_fields__
    }
    settings, log = built[section.SECTION], built[LogSettings.SECTION]
    assert isinstance(settings, section)
    assert isinstance(log, LogSettings)
    return Loaded(settings, log, sources)


def _read_file(env: Mapping[str, str], values: dict[str, dict[str, tuple[Any, str]]]) -> None:
    named = env.get(f"{PREFIX}CONFIG", "")
    path = Path(named) if named else DEFAULT_FILE
    if not named and not path.exists():
        return
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from None
    for name, table in tables.items():
        if name not in SECTIONS:
            raise SettingsError(f"{path}: unknown table [{name}]{_near(name, SECTIONS)}")
        if not isinstance(table, dict):
            raise SettingsError(f"{path}: {name} must be a table: [{name}]")
        for key, value in table.items():
            _known(name, key, f"{path}: [{name}] {key}")
            values[name][key] = (value, str(path))


def _read_environment(env: Mapping[str, str], values: dict[str, dict[str, tuple[Any, str]]]) -> None:
    names = {
        f"{PREFIX}{name.upper()}_{key.upper()}": (name, key)
        for name, section in SECTIONS.items()
        for key in section.__struct_fields__
    }
    for variable, (name, key) in OLDER_NAMES.items():
        if env.get(variable, "").strip():
            values[name][key] = (env[variable].strip(), variable)
    for variable in sorted(env):
        if not variable.startswith(PREFIX) or variable == f"{PREFIX}CONFIG":
            continue
        if variable not in names:
            raise SettingsError(f"unknown environment variable {variable}{_near(variable, names)}")
        name, key = names[variable]
        values[name][key] = (env[variable], variable)


def _build(section: type[Section], found: Mapping[str, tuple[Any, str]]) -> Section:
    types = {field.name: field.type for field in msgspec.structs.fields(section)}
    converted = {
        key: _convert(value, types[key], source, f"{section.SECTION}.{key}") for key, (value, source) in found.items()
    }
    try:
        return section(**converted)
    except ValueError as error:
        raise SettingsError(f"[{section.SECTION}]: {error}") from None


def _convert(value: Any, type_: Any, source: str, name: str) -> Any:
    text = isinstance(value, str)
    if text and value.lower() in ("yes", "on", "no", "off"):  # as people write booleans
        try:
            return msgspec.convert(value, type_)
        except msgspec.ValidationError:
            value = "true" if value.lower() in ("yes", "on") else "false"
    try:
        if text and value.lstrip()[:1] in ("{", "["):
            return msgspec.json.decode(value, type=type_)
        return msgspec.convert(value, type_, strict=not text)
    except (msgspec.ValidationError, msgspec.DecodeError):
        raise SettingsError(f"{name} = {value!r} (from {source}) is not right: say {_right(type_)}") from None


def _right(type_: Any) -> str:
    """What a value of a declared type looks like, in words."""
    kind = inspect.type_info(type_)
    examples: list[str] = []
    if isinstance(kind, inspect.Metadata):
        examples = (kind.extra_json_schema or {}).get("examples", [])
        kind = kind.type
    if examples:
        return f"something like {_either(examples)}"
    match kind:
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return _either(kind.values)
        case inspect.IntType():
            return f"a whole number {_range(kind)}"
        case inspect.FloatType():
            return f"a number {_range(kind)}"
        case inspect.StrType():
            bounds = {"or more": kind.min_length, "or fewer": kind.max_length}
            said = [f" of {length} {words} characters" for words, length in bounds.items() if length]
            return f"a text{' and'.join(said)}"
    raise TypeError(f"a setting of a kind that nobody can explain: {kind}")


def _range(kind: inspect.IntType | inspect.FloatType) -> str:
    least = f"above {kind.gt:.10g}" if kind.gt is not None else f"from {kind.ge:.10g}"
    return f"{least} to {kind.le:.10g}"


def _either(choices: Sequence[Any]) -> str:
    *others, last = map(str, choices)
    return f"{', '.join(others)} or {last}" if others else last


def _known(section: str, key: str, where: str) -> None:
    fields = SECTIONS[section].__struct_fields__
    if key not in fields:
        raise SettingsError(f"{where}: there is no such setting{_near(key, fields)}")


def _near(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(sorted(known))}"
