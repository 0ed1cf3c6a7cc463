"""The pure session: each event with its commands, compared as lists."""

from collections.abc import Iterator

import msgspec
import pytest

from common.messages import (
    Bye,
    CancelToken,
    Credit,
    DeviceInfo,
    DeviceLoad,
    Dispatch,
    Done,
    Drain,
    Draining,
    ErrorReply,
    Fail,
    Fenced,
    Heartbeat,
    HeldToken,
    InputPicture,
    Message,
    Picture,
    Register,
    ResultAck,
    Resync,
    Returned,
    Started,
    Timings,
    Token,
    Welcome,
    WorkerProgress,
)
from common.models import ModelCard
from common.settings import GpuDaemonSettings
from gpu_daemon.engine_messages import Begun, Broken, Draw, Drawn, Load, Loading, Quit, Ready, Step, Stop, Undrawn
from gpu_daemon.events import (
    Command,
    DrainAsked,
    EngineDied,
    EngineSaid,
    EngineStarted,
    Event,
    KillEngine,
    Leave,
    Log,
    Reconnect,
    RouterSaid,
    Tick,
    ToEngine,
    ToRouter,
)
from gpu_daemon.session import Session
from tests.gpu_daemon.fake_router import job_order, token

DEVICE = DeviceInfo(device="cpu", kind="cpu", name="a processor", total_mb=1000)
CARD = ModelCard(name="noop")
INTRODUCTION = Register(worker_id="host/cpu", boot_id="b", nonce="", host="host", device=DEVICE, models=(CARD,))
SETTINGS = GpuDaemonSettings(job_timeout_s=100.0, job_stop_grace_s=5.0, drain_s=30.0)
READY = Ready(card=CARD, device=DEVICE, load=DeviceLoad(), load_s=1.0, offloaded=False)
PICTURE = Picture(format="png", width=64, height=48, drawn_width=64, drawn_height=48, bytes=3, sha256="0" * 64)
A, B, C = token(1), token(2), token(3)


class Driver:
    """A session and the time; what it says is kept less its log."""

    def __init__(self) -> None:
        self.session = Session(INTRODUCTION, SETTINGS)
        self.now = 1000.0
        self.epoch = 0
        self.log: list[Log] = []

    def do(self, event: Event) -> list[Command]:
        commands = self.session.handle(event, self.now)
        self.session.check_invariants()
        self.log += [command for command in commands if isinstance(command, Log)]
        return [command for command in commands if not isinstance(command, Log)]

    def at(self, seconds: float) -> list[Command]:
        """A tick so much later."""
        self.now += seconds
        return self.do(Tick())

    def hear(self, message: Message) -> list[Command]:
        return self.do(RouterSaid(message))

    def engine(self, message: Message, payload: tuple[bytes, ...] = ()) -> list[Command]:
        return self.do(EngineSaid(message, payload))

    def welcome(self, keep: tuple[Token, ...] = (), drop: tuple[Token, ...] = ()) -> list[Command]:
        register = self.session._nonce
        self.epoch += 1
        return self.hear(
            Welcome(nonce=register, epoch=self.epoch, heartbeat_interval_s=1.0, dead_after_s=10.0, keep=keep, drop=drop)
        )

    def dispatch(self, which: Token, remaining_s: float = 600.0) -> list[Command]:
        return self.hear(Dispatch(epoch=self.epoch, token=which, job=job_order(), remaining_s=remaining_s))

    def heartbeat(self, state: str, detail: str = "", pid: int = 1) -> ToRouter:
        return ToRouter(Heartbeat(epoch=self.epoch, state=state, detail=detail, engine_pid=pid))

    def credit(self, granted: int) -> ToRouter:
        return ToRouter(Credit(epoch=self.epoch, granted_total=granted))

    def done(self, which: Token) -> ToRouter:
        return ToRouter(
            Done(epoch=self.epoch, token=which, picture=PICTURE, parts=(3,), timings=Timings(denoise_s=1.0)), (b"png",)
        )

    def fail(self, which: Token, code: str, message: str, *, started: bool = True) -> ToRouter:
        return ToRouter(Fail(epoch=self.epoch, token=which, code=code, message=message, started=started))

    def returned(self, which: Token, reason: str) -> ToRouter:
        return ToRouter(Returned(epoch=self.epoch, token=which, reason=reason))

    def drawn(self, which: Token) -> list[Command]:
        return self.engine(Drawn(token=which, picture=PICTURE, parts=(3,), timings=Timings(denoise_s=1.0)), (b"png",))


@pytest.fixture
def new() -> Driver:
    return Driver()


@pytest.fixture
def ready() -> Iterator[Driver]:
    """Registered in epoch 1, the engine ready, two credits granted."""
    driver = Driver()
    driver.do(Tick())
    driver.do(EngineStarted(1))
    driver.welcome()
    assert driver.engine(READY) == [driver.heartbeat("ready"), driver.credit(2)]
    yield driver
    driver.session.check_invariants()


def drawing(which: Token) -> ToEngine:
    return ToEngine(Draw(token=which, job=job_order()))


# --- registration ------------------------------------------------------------------------------


def test_register_is_repeated_with_growing_waits_and_a_new_nonce_each(new: Driver) -> None:
    assert new.do(Tick()) == [ToRouter(msgspec.structs.replace(INTRODUCTION, nonce="b-1"))]
    assert new.at(0.9) == []
    assert new.at(0.2) == [ToRouter(msgspec.structs.replace(INTRODUCTION, nonce="b-2"))]
    assert new.at(1.0) == []
    assert new.at(1.1) == [ToRouter(msgspec.structs.replace(INTRODUCTION, nonce="b-3"))]


def test_only_the_answer_to_the_last_register_counts(new: Driver) -> None:
    new.do(Tick())
    new.at(2.0)
    late = Welcome(nonce="b-1", epoch=4, heartbeat_interval_s=1.0, dead_after_s=10.0)
    assert new.hear(late) == []
    assert new.welcome() == [new.heartbeat("loading", "starting the engine process", 0)]
    assert new.hear(msgspec.structs.replace(late, nonce="b-2", epoch=9)) == []


def test_a_connection_without_a_welcome_is_made_afresh(new: Driver) -> None:
    commands = [command for _ in range(40) for command in new.at(0.5)]
    at = commands.index(Reconnect())
    assert isinstance(commands[at + 1], ToRouter)
    assert isinstance(commands[at + 1].message, Register)


def test_no_credit_before_the_engine_is_ready(new: Driver) -> None:
    new.do(Tick())
    new.welcome()
    new.do(EngineStarted(1))
    assert new.engine(Loading(stage="loading vae", fraction=0.5)) == []
    assert new.at(1.0) == [new.heartbeat("loading", "loading vae")]
    assert new.engine(READY) == [new.heartbeat("ready"), new.credit(2)]


def test_a_dispatch_that_finds_no_engine_is_returned(new: Driver) -> None:
    new.do(Tick())
    new.welcome()
    assert new.dispatch(A) == [new.returned(A, "engine not ready")]


def test_an_engine_that_knows_better_is_introduced_again(new: Driver) -> None:
    new.do(Tick())
    new.welcome()
    device = msgspec.structs.replace(DEVICE, total_mb=2000)
    changed = msgspec.structs.replace(INTRODUCTION, nonce="b-2", device=device)
    assert new.engine(msgspec.structs.replace(READY, device=device)) == [ToRouter(changed)]
    assert new.welcome() == [new.heartbeat("ready", pid=0), new.credit(2)]


# --- run and next ------------------------------------------------------------------------------


def test_a_job_from_dispatch_to_acknowledgement(ready: Driver) -> None:
    assert ready.dispatch(A) == [drawing(A)]
    assert ready.engine(Begun(token=A)) == [ToRouter(Started(epoch=1, token=A))]
    step = Step(token=A, step=1, steps=4, step_s=0.5, load=DeviceLoad(allocated_mb=5))
    assert ready.engine(step) == [ToRouter(WorkerProgress(epoch=1, token=A, step=1, steps=4, step_s=0.5))]
    assert ready.drawn(A) == [ready.done(A)]
    assert ready.hear(ResultAck(token=A)) == [ready.credit(3)]
    assert [line.event for line in ready.log if line.event.startswith("job.")] == [
        "job.dispatched",
        "job.started",
        "job.done",
    ]


def test_the_next_job_is_drawn_as_soon_as_the_engine_is_free(ready: Driver) -> None:
    ready.dispatch(A)
    assert ready.dispatch(B) == []
    assert ready.drawn(A) == [ready.done(A), drawing(B)]
    assert ready.hear(ResultAck(token=A)) == [ready.credit(3)]


def test_progress_is_thinned_but_for_its_last_steps(ready: Driver) -> None:
    ready.dispatch(A)
    said = [
        command
        for step in range(1, 21)
        for command in ready.engine(Step(token=A, step=step, steps=20, step_s=0.0, load=DeviceLoad()))
    ]
    assert [command.message.step for command in said if isinstance(command, ToRouter)] == [1, 19, 20]


def test_a_preview_is_passed_on_with_its_bytes_at_whatever_step(ready: Driver) -> None:
    ready.dispatch(A)
    preview = Picture(format="jpeg", width=1, height=1, drawn_width=1, drawn_height=1, bytes=3, sha256="0" * 64)
    steps = [Step(token=A, step=n, steps=20, step_s=0.0, load=DeviceLoad()) for n in range(1, 4)]
    shown = [msgspec.structs.replace(steps[n], preview=preview, preview_index=n - 1, parts=(3,)) for n in (1, 2)]
    ready.engine(steps[0])
    for index, step in enumerate(shown):
        progress = WorkerProgress(
            epoch=1, token=A, step=step.step, steps=20, preview=preview, preview_index=index, parts=(3,)
        )
        assert ready.engine(step, (b"abc",)) == [ToRouter(progress, (b"abc",))]


def test_what_a_job_starts_from_is_held_until_it_has_ended(ready: Driver) -> None:
    job, other = (msgspec.structs.replace(job_order(), inputs=(input_of(size),)) for size in (5, 1))
    first = Dispatch(epoch=1, token=A, job=job, remaining_s=600.0, parts=(3, 2))
    assert ready.do(RouterSaid(first, (b"abc", b"de"))) == [
        ToEngine(Draw(token=A, job=job, parts=(3, 2)), (b"abc", b"de"))
    ]
    second = Dispatch(epoch=1, token=B, job=other, remaining_s=600.0, parts=(1,))
    assert ready.do(RouterSaid(second, (b"x",))) == []
    ready.drawn(A)
    assert [held.inputs for held in ready.session.work.hand.all()] == [(), (b"x",)]


@pytest.mark.parametrize("payload", [(), (b"abcd",), (b"abcde", b"f"), (b"abcdef",)])
def test_a_job_whose_frames_are_not_its_files_fails_and_reaches_no_engine(
    ready: Driver, payload: tuple[bytes, ...]
) -> None:
    job = msgspec.structs.replace(job_order(), inputs=(input_of(5),))
    order = Dispatch(epoch=1, token=A, job=job, remaining_s=600.0, parts=tuple(map(len, payload)))
    told = ready.do(RouterSaid(order, payload))[-1]
    assert isinstance(told, ToRouter)
    assert isinstance(told.message, Fail)
    assert (told.message.code, told.message.started) == ("protocol_error", False)
    assert ready.session.work.hand.running() is None


def input_of(size: int) -> InputPicture:
    return InputPicture(kind="image", format="png", width=1, height=1, bytes=size, sha256="0" * 64)


def test_a_dispatch_beyond_the_credit_is_returned(ready: Driver) -> None:
    ready.dispatch(A)
    ready.dispatch(B)
    assert ready.dispatch(C) == [ready.returned(C, "no credit was left"), ready.credit(3)]


def test_a_dispatch_of_another_epoch_is_ignored(ready: Driver) -> None:
    assert ready.hear(Dispatch(epoch=7, token=A, job=job_order(), remaining_s=60.0)) == []


def test_an_ended_job_holds_its_slot_until_it_is_acknowledged(ready: Driver) -> None:
    ready.dispatch(A)
    ready.drawn(A)
    ready.dispatch(B)
    assert ready.dispatch(C)[0] == ready.returned(C, "no credit was left")


@pytest.mark.parametrize("answer", [ResultAck(token=A), Fenced(token=A)])
def test_each_answer_to_an_end_frees_its_slot_once(ready: Driver, answer: Message) -> None:
    ready.dispatch(A)
    ready.drawn(A)
    assert ready.hear(answer) == [ready.credit(3)]
    assert ready.hear(answer) == []


def test_an_acknowledgement_of_what_still_runs_changes_nothing(ready: Driver) -> None:
    ready.dispatch(A)
    assert ready.hear(ResultAck(token=A)) == []
    assert ready.drawn(A) == [ready.done(A)]


# --- failures ----------------------------------------------------------------------------------


def test_the_engines_failure_is_passed_on(ready: Driver) -> None:
    ready.dispatch(A)
    undrawn = Undrawn(token=A, code="out_of_memory", message="too large")
    assert ready.engine(undrawn) == [ready.fail(A, "out_of_memory", "too large")]


def test_a_dead_engine_fails_what_ran_and_returns_what_came_next(ready: Driver) -> None:
    ready.dispatch(A)
    ready.dispatch(B)
    ready.engine(Begun(token=A))
    assert ready.do(EngineDied("was killed by SIGKILL")) == [
        ready.fail(A, "engine_died", "the engine process was killed by SIGKILL while it drew"),
        ready.returned(B, "engine not ready"),
        ready.heartbeat("loading", "restarting: the engine process was killed by SIGKILL", 0),
    ]
    assert ready.hear(ResultAck(token=A)) == []
    ready.do(EngineStarted(2))
    assert ready.engine(READY) == [ready.heartbeat("ready", pid=2), ready.credit(4)]


def test_a_broken_engine_is_shown_and_asked_to_end(ready: Driver) -> None:
    assert ready.engine(Broken(code="model_load_failed", message="no vae")) == [
        ToEngine(Quit()),
        ready.heartbeat("broken", "no vae"),
    ]
    ready.do(EngineDied("ended with status 1"))
    assert ready.session.work.state == "broken"
    assert [line.fields["what_to_do"] for line in ready.log if line.event == "engine.broken"] != [""]


def test_an_engine_that_breaks_while_drawing_gets_no_next_job(ready: Driver) -> None:
    ready.dispatch(A)
    ready.dispatch(B)
    assert ready.engine(Broken(code="engine_died", message="CUDA")) == [
        ToEngine(Quit()),
        ready.returned(B, "engine not ready"),
        ready.heartbeat("broken", "CUDA"),
    ]
    assert ready.engine(Undrawn(token=A, code="engine_died", message="CUDA")) == [ready.fail(A, "engine_died", "CUDA")]


def test_words_about_a_job_that_does_not_run_are_logged_only(ready: Driver) -> None:
    assert ready.engine(Begun(token=C)) == []
    assert ready.drawn(C) == []
    assert [line.event for line in ready.log].count("engine.confused") == 2


# --- stopping ----------------------------------------------------------------------------------


def test_a_waiting_job_is_cancelled_at_once(ready: Driver) -> None:
    ready.dispatch(A)
    ready.dispatch(B)
    assert ready.hear(CancelToken(token=B)) == [ready.credit(3)]
    assert ready.drawn(A) == [ready.done(A)]


def test_a_running_job_is_stopped_and_its_slot_freed_when_it_has(ready: Driver) -> None:
    ready.dispatch(A)
    assert ready.hear(CancelToken(token=A)) == [ToEngine(Stop(token=A))]
    assert ready.hear(CancelToken(token=A)) == []
    assert ready.engine(Undrawn(token=A, code="cancelled", message="")) == [ready.credit(3)]


def test_a_picture_that_was_cancelled_too_late_is_dropped(ready: Driver) -> None:
    ready.dispatch(A)
    ready.hear(CancelToken(token=A))
    assert ready.drawn(A) == [ready.credit(3)]


def test_a_job_timeout_stops_then_kills(ready: Driver) -> None:
    ready.dispatch(A)
    assert ToEngine(Stop(token=A)) not in ready.at(99.0)
    assert ToEngine(Stop(token=A)) in ready.at(2.0)
    assert KillEngine("it did not stop its job within job_stop_grace_s = 5 s") not in ready.at(4.0)
    assert KillEngine("it did not stop its job within job_stop_grace_s = 5 s") in ready.at(2.0)
    assert not [command for command in ready.at(2.0) if isinstance(command, KillEngine)]
    died = ready.do(EngineDied("was killed by SIGKILL"))
    assert died[0] == ready.fail(A, "job_timeout", "the job ran longer than job_timeout_s = 100 s")


def test_a_job_timeout_that_the_engine_obeys_kills_nobody(ready: Driver) -> None:
    ready.dispatch(A)
    ready.at(101.0)
    undrawn = Undrawn(token=A, code="cancelled", message="")
    assert ready.engine(undrawn) == [ready.fail(A, "job_timeout", "the job ran longer than job_timeout_s = 100 s")]
    assert not [command for command in ready.at(60.0) if isinstance(command, KillEngine)]


def test_a_picture_that_comes_despite_its_timeout_is_delivered(ready: Driver) -> None:
    ready.dispatch(A)
    ready.at(101.0)
    assert ready.drawn(A) == [ready.done(A)]


def test_a_cancelled_job_that_hangs_is_killed_at_its_timeout(ready: Driver) -> None:
    ready.dispatch(A)
    ready.hear(CancelToken(token=A))
    assert not [command for command in ready.at(50.0) if isinstance(command, KillEngine)]
    ready.at(51.0)
    assert [command for command in ready.at(6.0) if isinstance(command, KillEngine)]
    assert ready.do(EngineDied("was killed by SIGKILL")) == [
        ready.heartbeat("loading", "restarting: the engine process was killed by SIGKILL", 0)
    ]


def test_a_deadline_ends_a_waiting_and_a_running_job(ready: Driver) -> None:
    ready.dispatch(A, remaining_s=20.0)
    ready.dispatch(B, remaining_s=10.0)
    waited = ready.fail(B, "deadline_exceeded", "the job's deadline passed before it was drawn", started=False)
    assert waited in ready.at(10.0)
    ready.hear(ResultAck(token=B))
    assert ToEngine(Stop(token=A)) in ready.at(10.0)
    assert ready.engine(Undrawn(token=A, code="cancelled", message="")) == [
        ready.fail(A, "deadline_exceeded", "the job's deadline passed while it was drawn")
    ]


# --- reconciliation ----------------------------------------------------------------------------


def test_resync_registers_with_everything_in_hand(ready: Driver) -> None:
    ready.dispatch(A)
    ready.drawn(A)
    ready.dispatch(B)
    held = (HeldToken(token=A, stage="ended"), HeldToken(token=B, stage="running"))
    assert ready.hear(Resync()) == [ToRouter(msgspec.structs.replace(INTRODUCTION, nonce="b-2", tokens=held))]
    assert ready.hear(Resync()) == []  # one is on its way
    ready.engine(Begun(token=B))
    assert ready.welcome(keep=(A, B)) == [
        ready.heartbeat("ready"),
        ready.done(A),
        ToRouter(Started(epoch=2, token=B)),
    ]
    assert ready.hear(ResultAck(token=A)) == [ready.credit(1)]


def test_what_a_welcome_drops_is_dropped_and_stopped(ready: Driver) -> None:
    ready.dispatch(A)
    ready.dispatch(B)
    ready.hear(Resync())
    assert ready.welcome(drop=(A, B)) == [ToEngine(Stop(token=A)), ready.heartbeat("ready"), ready.credit(1)]
    ready.hear(Resync())
    assert ready.session.work.hand.tokens() == ()
    ready.welcome()
    assert ready.engine(Undrawn(token=A, code="cancelled", message="")) == [ready.credit(2)]


def test_a_job_that_ended_while_registering_is_told_after_the_welcome(ready: Driver) -> None:
    ready.dispatch(A)
    ready.hear(Resync())
    assert ready.drawn(A) == []
    assert ready.welcome(keep=(A,)) == [ready.heartbeat("ready"), ready.done(A), ready.credit(1)]


def test_a_job_given_up_while_registering_is_returned_after_the_welcome(ready: Driver) -> None:
    ready.dispatch(A)
    ready.dispatch(B)
    ready.hear(Resync())
    assert ready.do(EngineDied("was killed by SIGKILL")) == []
    welcomed = ready.welcome(keep=(A, B))
    assert ready.returned(B, "given up meanwhile") in welcomed
    assert [command for command in welcomed if isinstance(command, ToRouter) and isinstance(command.message, Fail)]


def test_an_end_that_nobody_answers_is_registered_again(ready: Driver) -> None:
    ready.dispatch(A)
    ready.drawn(A)
    assert not [c for c in ready.at(9.0) if isinstance(c, ToRouter) and isinstance(c.message, Register)]
    registered = ready.at(1.5)
    assert [c for c in registered if isinstance(c, ToRouter) and isinstance(c.message, Register)]
    assert ready.done(A) not in registered
    assert ready.welcome(keep=(A,)) == [ready.heartbeat("ready"), ready.done(A), ready.credit(1)]


def test_an_error_of_the_router_is_logged_and_changes_nothing(ready: Driver) -> None:
    assert ready.hear(ErrorReply(code="unavailable", message="no")) == []
    assert ready.log[-1].event == "router.refused"


# --- draining ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", [DrainAsked(), RouterSaid(Drain())])
def test_an_idle_daemon_leaves_at_once(ready: Driver, wish: Event) -> None:
    ready.engine(Load(load=DeviceLoad()))
    assert ready.do(wish) == [
        ToRouter(Draining(epoch=1)),
        ready.heartbeat("draining"),
        ToRouter(Bye(epoch=1)),
        Leave(),
    ]
    assert ready.at(5.0) == []


def test_drain_returns_what_waits_finishes_what_runs_and_waits_for_its_acknowledgement(ready: Driver) -> None:
    ready.dispatch(A)
    ready.dispatch(B)
    assert ready.do(DrainAsked()) == [
        ToRouter(Draining(epoch=1)),
        ready.returned(B, "draining"),
        ready.heartbeat("draining"),
    ]
    assert ready.dispatch(C) == [ready.returned(C, "draining")]
    assert ready.drawn(A) == [ready.done(A)]
    assert ready.hear(ResultAck(token=A)) == [ToRouter(Bye(epoch=1)), Leave()]


def test_drain_gives_back_what_does_not_finish_in_time(ready: Driver) -> None:
    ready.dispatch(A)
    ready.do(DrainAsked())
    assert ToEngine(Stop(token=A)) in ready.at(30.0)
    assert ready.engine(Undrawn(token=A, code="cancelled", message="")) == [
        ready.returned(A, "draining"),
        ToRouter(Bye(epoch=1)),
        Leave(),
    ]


def test_drain_kills_an_engine_that_hangs(ready: Driver) -> None:
    ready.dispatch(A)
    ready.do(DrainAsked())
    ready.at(30.0)
    assert [command for command in ready.at(5.0) if isinstance(command, KillEngine)]
    died = ready.do(EngineDied("was killed by SIGKILL"))
    assert died[0] == ready.returned(A, "draining")
    assert died[-1] == Leave()


def test_drain_does_not_wait_for_ever_for_a_router_that_is_gone(ready: Driver) -> None:
    ready.dispatch(A)
    ready.do(DrainAsked())
    ready.drawn(A)
    assert Leave() not in ready.at(9.0)
    assert Leave() in ready.at(1.0)
    assert "results.left" in [line.event for line in ready.log]


def test_an_unregistered_daemon_leaves_without_a_word(new: Driver) -> None:
    assert new.do(DrainAsked()) == [Leave()]


def test_a_draining_daemon_that_registers_again_says_that_it_drains(ready: Driver) -> None:
    ready.dispatch(A)
    ready.do(DrainAsked())
    ready.hear(Resync())
    assert ready.welcome(keep=(A,)) == [ready.heartbeat("draining"), ToRouter(Draining(epoch=2))]
