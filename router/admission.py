"""What a client asks for becomes what a GPU is ordered to draw, or is refused with what to do.

Pure. By the model's card alone; whether there is room is asked of `Room`.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from common.errors import GenServeError
from common.messages import JobOrder, JobSpec, Note
from common.models import ENLARGED_SKEW_MAX, ModelCard
from common.settings import RouterSettings
from router.fair import Client
from router.fleet import Fleet, Worker
from router.inputs import resolve_inputs, wanted_size
from router.jobs import Job
from router.queue import client_of
from router.scheduler import remaining_s

NEGATIVE_PROMPT_CFG_SCALE = 4.0  # where a negative prompt comes without a true_cfg_scale
WEBP_SIDE_MAX = 16383  # the format takes no more
RETRY_AFTER_MIN_S = 1.0
RETRY_AFTER_UNKNOWN_S = 5.0  # where no speed is known
RETRY_AFTER_MAX_S = 120.0  # clients do not heed more


def choose_model(wanted: str, default: str, cards: Mapping[str, ModelCard], fleet: Fleet) -> ModelCard:
    """The card of the wanted model ('' means `default`, then the oldest one served, then the oldest known).

    `cards` holds every model ever registered, oldest first. Raises GenServeError unknown_model, with the
    list, or unavailable where no daemon has ever registered.
    """
    if not cards:
        raise GenServeError(
            "unavailable", "no GPU daemon has registered a model yet", retry_after_s=RETRY_AFTER_UNKNOWN_S
        )
    name = wanted or default_model(default, cards, fleet)
    card = cards.get(name)
    if card is None and not wanted:
        raise GenServeError(
            "unavailable",
            f"the default model {name!r} has not been registered yet; name one of {', '.join(cards)}",
            retry_after_s=RETRY_AFTER_UNKNOWN_S,
        )
    if card is None:
        raise GenServeError(
            "unknown_model", f"there is no model {name!r}; there are: {', '.join(cards)}", param="model"
        )
    return card


def default_model(setting: str, cards: Mapping[str, ModelCard], fleet: Fleet) -> str:
    """The model of jobs that name none; '' until one is known."""
    if setting:
        return setting
    return next((name for name in cards if fleet.serving(name)), next(iter(cards), ""))


def resolve(spec: JobSpec, card: ModelCard, seed: int) -> tuple[JobOrder, tuple[Note, ...]]:
    """Every choice made: the order for `spec`, and what its reader should know about it.

    Raises GenServeError invalid_request or unsupported, naming the field.
    """
    if not spec.prompt.strip():
        raise GenServeError("invalid_request", "the prompt is blank; say what to draw", param="prompt")
    if (spec.width == 0) != (spec.height == 0):
        raise GenServeError(
            "invalid_request", "give both width and height, or neither (or 0 for both: the default size)", param="size"
        )
    inputs, strength = resolve_inputs(spec, card)
    wanted = wanted_size(spec, inputs, card)
    drawn = card.drawn_size(*wanted)
    size = wanted if wanted[0] else drawn
    _check_format(spec, card, size)
    steps = spec.steps or card.steps
    if steps > card.steps_max:
        raise GenServeError(
            "invalid_request", f"steps is {steps}; {card.name} takes 1 to {card.steps_max}", param="steps"
        )
    if spec.guidance_scale is not None and not card.guided:
        raise GenServeError("unsupported", f"{card.name} takes no guidance_scale; leave it out", param="guidance_scale")
    if spec.true_cfg_scale is not None and not spec.negative_prompt:
        raise GenServeError(
            "invalid_request", "true_cfg_scale means something only with a negative_prompt", param="true_cfg_scale"
        )
    without_scale = NEGATIVE_PROMPT_CFG_SCALE if spec.negative_prompt else 1.0
    order = JobOrder(
        prompt=spec.prompt,
        negative_prompt=spec.negative_prompt,
        model=card.name,
        width=size[0],
        height=size[1],
        drawn_width=drawn[0],
        drawn_height=drawn[1],
        steps=steps,
        guidance_scale=card.guidance_scale if spec.guidance_scale is None else spec.guidance_scale,
        true_cfg_scale=without_scale if spec.true_cfg_scale is None else spec.true_cfg_scale,
        seed=seed if spec.seed is None else spec.seed,
        priority=spec.priority,
        client=spec.client,
        save=spec.save,
        previews=spec.previews,
        format=spec.format,
        quality=spec.quality,
        inputs=inputs,
        strength=strength,
    )
    return order, (*_enlarged_note(order), *_stretched_note(order))


def _check_format(spec: JobSpec, card: ModelCard, size: tuple[int, int]) -> None:
    if spec.format not in card.formats:
        text = f"format is {spec.format!r}; the engine of {card.name} writes {' or '.join(card.formats)}"
        raise GenServeError("unsupported", text, param="format")
    if spec.quality is not None and spec.format == "png":
        text = "quality means something only with format jpeg or webp: a png keeps every pixel; leave it out"
        raise GenServeError("invalid_request", text, param="quality")
    if spec.format == "webp" and max(size) > WEBP_SIDE_MAX:
        text = f"a webp has at most {WEBP_SIDE_MAX} pixels a side; ask for a smaller size, or for png or jpeg"
        raise GenServeError("invalid_request", text, param="size")


def _enlarged_note(order: JobOrder) -> tuple[Note, ...]:
    if (order.width, order.height) == (order.drawn_width, order.drawn_height):
        return ()
    return (
        Note(
            code="enlarged",
            message=f"{order.model} draws this at {order.drawn_width}x{order.drawn_height}; "
            f"the picture is enlarged to {order.width}x{order.height}",
        ),
    )


def _stretched_note(order: JobOrder) -> tuple[Note, ...]:
    """Of an image whose shape is not that of the picture, by more than an enlarged picture may be stretched."""
    if not order.inputs:
        return ()
    image, shape = order.inputs[0], order.width / order.height
    if abs(math.log(image.width / image.height / shape)) <= ENLARGED_SKEW_MAX:
        return ()
    text = f"the image of {image.width}x{image.height} is stretched to the picture's {order.width}x{order.height}"
    return (Note(code="stretched", message=text),)


def note_unserved(card: ModelCard) -> Note:
    """For a job that nobody can draw just now."""
    return Note(code="model_not_served", message=f"no GPU serves {card.name} just now; the job waits for one")


class Room:
    """How many jobs may wait: `gpu_queue_size` and one running for each GPU, and `global_queue_size` besides.

    `global_queue_reserve` further places are for those who have less than their equal share of all places, so
    that whoever floods the queue keeps nobody else out. It counts the jobs that still need a GPU.
    """

    def __init__(self, fleet: Fleet, jobs: Mapping[str, Job], settings: RouterSettings) -> None:
        self._fleet = fleet
        self._jobs = jobs
        self._settings = settings
        self.needing: Counter[str] = Counter()  # by model
        self.clients: Counter[Client] = Counter()
        self._promised_now: dict[str, float] = {}  # when whoever was refused last, by model, was told to come back

    def count(self, job: Job, change: int) -> None:
        """One job more (1) or less (-1) needs a GPU."""
        model, client = job.order.model, client_of(job)
        self.needing[model] += change
        self.clients[client] += change
        if not self.needing[model]:
            del self.needing[model]
        if not self.clients[client]:
            del self.clients[client]

    def check(self, model: str, client: Client, now: float) -> None:
        """Raise GenServeError queue_full, saying when to come back, where one job more has no place."""
        size, reserve = self._settings.global_queue_size, self._settings.global_queue_reserve
        over = self._over(model)
        if over <= size or (over <= size + reserve and self.clients[client] < self.equal_share(client)):
            return
        gpus = self._fleet.places(model)
        full = (
            f"every place in the queue is taken: {sum(self.needing.values())} jobs run or wait "
            f"({self._settings.gpu_queue_size} may wait for each of {gpus} GPUs that serve {model}, "
            f"and {size} behind them)"
        )
        if over <= size + reserve:
            full += (
                f"; what is left is kept for clients with fewer jobs than an equal share, which is "
                f"{self.equal_share(client):.3g} now: {client[1] or client[0]} has {self.clients[client]}"
            )
        raise GenServeError("queue_full", full, retry_after_s=self._retry_after_s(model, now))

    def equal_share(self, client: Client) -> float:
        """Of all places but the reserve, if each client with jobs here, and this one, had equally many.

        Who is alone shares with whoever may come.
        """
        gpus = sum(worker.will_serve for worker in self._fleet.workers.values())
        places = gpus * (1 + self._settings.gpu_queue_size) + self._settings.global_queue_size
        return places / max(2, len(self.clients) + (client not in self.clients))

    def _over(self, model: str) -> int:
        """How many jobs more than the GPUs' own places there would be with one more of this model."""
        over = sum(
            max(0, needing + (name == model) - self._fleet.places(name) * (1 + self._settings.gpu_queue_size))
            for name, needing in self.needing.items()
        )
        return over + (model not in self.needing and not self._fleet.places(model))

    def _retry_after_s(self, model: str, now: float) -> float:
        """Seconds until a place is likely to be free for this caller: behind those who were refused before it."""
        serving = self._fleet.serving(model)
        left_s = [left for worker in serving if (left := self._busy_s(worker, now)) is not None]
        if not left_s:
            return RETRY_AFTER_UNKNOWN_S
        turn_now = max(now + min(left_s), self._promised_now.get(model, 0.0) + self._between_ends_s(serving))
        wait_s = min(turn_now - now, RETRY_AFTER_MAX_S)
        self._promised_now[model] = now + wait_s
        return max(RETRY_AFTER_MIN_S, float(math.ceil(wait_s)))

    def _between_ends_s(self, serving: Iterable[Worker]) -> float:
        """Seconds from one job's end to the next one's, as these GPUs go now; 0 where no speed is known."""
        held = ((worker, self._jobs[job_id]) for worker in serving for job_id in list(worker.hand)[:1])
        times = [worker.service.speeds.job_s(job.order) for worker, job in held]
        pace = sum(1 / time for time in times if time)
        return 1 / pace if pace else 0.0

    def _busy_s(self, worker: Worker, now: float) -> float | None:
        held: Iterable[Job] = (self._jobs[job_id] for job_id in worker.hand)
        times = [remaining_s(job, worker, now) for job in held]
        return min((time for time in times if time is not None), default=None)
