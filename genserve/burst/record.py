"""What is asked of a service and what became of it: the whole material of a report.

Pure. Times ending in `_s` of a Request are seconds on this client's clock since the first request; those of a Job are
seconds since 1970 on the router's. The two are never subtracted from each other.
"""

from msgspec import Struct

from common.messages import RouterLimits

DONE, FAILED, GAVE_UP = "done", "failed", "gave_up"  # how a request may end


class Options(Struct, frozen=True, kw_only=True):
    """What the person at the command line asked for."""

    over: str  # http | zmq | both
    url: str
    router: str
    keyed: bool = False  # it comes in with a key, of the router or of HTTP
    requests: int
    concurrency: int  # requests under way at one time; 0: they come by `rate_per_s`
    rate_per_s: float  # of Poisson arrivals; 0: by `concurrency`
    seed: int
    model: str  # '': the default model
    sizes: tuple[tuple[int, int], ...]  # pixels; (0, 0): the model's own
    steps: tuple[int, ...]  # 0: the model's own
    priorities: tuple[int, ...]
    clients: int
    give_up_percent: float
    retries: int  # of a request that was refused or whose connection broke
    timeout_s: float  # a request's
    warm_up: int | None  # pictures before the measurement; None: each size once for each GPU


class Order(Struct, frozen=True, kw_only=True):
    """One request before it is sent."""

    number: int
    door: str  # http | zmq
    at_s: float  # when it is due; 0 where it follows another one's end
    client: str
    prompt: str
    width: int
    height: int
    steps: int
    seed: int
    priority: int
    give_up_after_s: float | None  # None: its client waits


class Job(Struct, frozen=True, kw_only=True):
    """What the service says of a request's job."""

    job_id: str
    worker_id: str  # '': it never came to a GPU
    state: str
    width: int
    height: int
    steps: int
    created_at: float
    started_at: float  # 0: never
    ended_at: float  # 0: not yet
    starts: int  # more than 1: it was tried again
    engine_s: float  # inside the engine; 0: not known
    denoise_s: float  # of it, all steps


class Request(Struct, frozen=True, kw_only=True):
    """One request and its end."""

    order: Order
    due_s: float  # when it should have been sent: latency begins here
    sent_s: float  # when its last try was sent
    ended_s: float
    outcome: str  # done | failed | gave_up
    code: str = ""  # of its failure
    message: str = ""
    tries: int = 1
    refusals: tuple[str, ...] = ()  # the codes of tries that were sent again
    first_step_s: float | None = None  # from `due_s`; None: none was seen
    bytes: int = 0  # of its picture
    job_id: str = ""  # '': the service did not tell which job it was
    job: Job | None = None  # None: nothing more is known of it

    @property
    def latency_s(self) -> float:
        """From when it was due to its picture, waits between tries included."""
        return self.ended_s - self.due_s

    @property
    def shape(self) -> str:
        """Size and steps, as a person reads them."""
        order = self.order
        size = f"{order.width}x{order.height}" if order.width else "the model's size"
        return f"{size}, {order.steps or 'its own'} steps"


class Gpu(Struct, frozen=True, kw_only=True):
    """A GPU that served the model when the run began."""

    worker_id: str
    name: str  # the device alone where all are of one host
    host: str
    built: str  # what the device calls itself
    version: str  # of its daemon's software


class Totals(Struct, frozen=True, kw_only=True):
    """What the router counted during the run, whoever asked."""

    submitted: int
    done: int
    failed: int
    cancelled: int
    refused: int
    retried: int


class Run(Struct, frozen=True, kw_only=True):
    """Everything that is known of one run."""

    options: Options
    began_at: float  # wall seconds since 1970
    version: str  # of this command
    model: str
    gpus: tuple[Gpu, ...]
    limits: RouterLimits
    warmed_up: int  # pictures
    totals: Totals | None  # None: the router restarted meanwhile, or did not answer in the end
    requests: tuple[Request, ...]  # in the order in which they were due
    interrupted: bool = False
