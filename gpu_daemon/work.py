"""The work between a daemon and its engine: hand over, watch, stop in time, and say how each job ended.

Pure: events in, commands out. It knows nothing of registration, epochs or credit: what it has for the
router carries epoch 0, and the session stamps it. A job that was handed to the engine counts as started,
for from then on it may have been what killed it.
"""

from collections.abc import Sequence

from common.codec import Buffer, divide, part_sizes
from common.errors import ERRORS, ProtocolError
from common.messages import (
    DeviceLoad,
    Dispatch,
    Done,
    Fail,
    Message,
    Returned,
    Started,
    Token,
    WorkerProgress,
)
from common.settings import GpuDaemonSettings
from gpu_daemon.engine_messages import Begun, Broken, Draw, Drawn, Load, Loading, Quit, Ready, Step, Stop, Undrawn
from gpu_daemon.events import (
    Command,
    EngineDied,
    EngineSaid,
    EngineStarted,
    KillEngine,
    Log,
    ToEngine,
    ToRouter,
)
from gpu_daemon.hand import PROGRESS_INTERVAL_S, Hand, Held, StopCode

UNSTAMPED = 0  # the epoch of what the session has still to stamp
STUCK_AFTER_S = 30.0  # beyond the moment at which an engine that does not stop its job is killed


class Work:
    """One engine and the jobs in hand."""

    def __init__(self, device: str, settings: GpuDaemonSettings) -> None:
        self.hand = Hand()
        self.state = "loading"  # loading | ready | broken
        self.detail = "starting the engine process"
        self.pid = 0
        self.deaths = 0  # of engine processes
        self.load = DeviceLoad()
        self._device = device
        self._settings = settings
        self._killing = False
        self._out: list[Command] = []

    @property
    def stop_s_max(self) -> float:
        """How long what runs may take to stop when draining, by the settings."""
        return self._settings.drain_s + self._settings.job_stop_grace_s

    def commands(self) -> list[Command]:
        """What has come up since the last call."""
        out, self._out = self._out, []
        return out

    # --- what the router wants -----------------------------------------------------------------

    def take(self, order: Dispatch, inputs: Sequence[Buffer], now: float) -> None:
        """Hold a job, and the files that it starts from, until the engine is free; other frames fail it."""
        held = Held(
            token=order.token,
            job=order.job,
            deadline_at=now + order.remaining_s,
            inputs=inputs,
            traceparent=order.traceparent,
        )
        self.hand.add(held)
        self._log("debug", "job.dispatched", order.token, dispatch=order.token.dispatch, model=order.job.model)
        try:
            divide(inputs, [each.bytes for each in order.job.inputs])
        except ProtocolError as error:
            self._fail(held, error.code, error.message, now)

    def forget(self, token: Token, now: float) -> None:
        """Nobody wants this any more: drop it, or stop it and drop what it yields."""
        held = self.hand.get(token)
        if held is None:
            return
        if held.stage == "running":
            self._stop(held, "cancelled", now)
        else:
            self.hand.drop(token)

    def give_back(self, reason: str) -> None:
        """Return everything that the engine has not been given."""
        for held in self.hand.waiting():
            self._return(held, reason)

    def stop_running(self, code: StopCode, now: float) -> None:
        """Ask the engine to stop what it draws."""
        held = self.hand.running()
        if held is not None:
            self._stop(held, code, now)

    def draw_next(self, now: float) -> None:
        """Hand the next job to an engine that is free."""
        waiting = self.hand.waiting()
        if self.state != "ready" or not waiting or self.hand.running() is not None:
            return
        held = waiting[0]
        held.stage, held.handed_at = "running", now
        draw = Draw(token=held.token, job=held.job, parts=part_sizes(held.inputs))
        self._out.append(ToEngine(draw, held.inputs))

    def tick(self, now: float) -> None:
        """Hold every job to its deadline and its timeout, and the engine to its grace."""
        for held in self.hand.waiting():
            if now >= held.deadline_at:
                self._fail(held, "deadline_exceeded", "the job's deadline passed before it was drawn", now)
        held_now = self.hand.running()
        if held_now is None:
            return
        if now >= held_now.handed_at + self._settings.job_timeout_s:
            self._stop(held_now, "job_timeout", now)
        elif now >= held_now.deadline_at:
            self._stop(held_now, "deadline_exceeded", now)
        if now >= held_now.kill_at and not self._killing:
            self._killing = True
            grace_s = self._settings.job_stop_grace_s
            self._out.append(KillEngine(f"it did not stop its job within job_stop_grace_s = {grace_s:g} s"))

    def stuck(self, now: float) -> str:
        """What is wrong where a job runs that should have been stopped long ago, by killing its engine if need be."""
        held, settings = self.hand.running(), self._settings
        if held is None:
            return ""
        late_s = now - held.handed_at - settings.job_timeout_s - settings.job_stop_grace_s
        return f"job {held.token.job_id} should have ended {late_s:.0f} s ago" if late_s > STUCK_AFTER_S else ""

    # --- what the engine says ------------------------------------------------------------------

    def engine_started(self, event: EngineStarted) -> None:
        """A new process: nothing of its predecessor holds."""
        self.pid, self._killing = event.pid, False
        self._out.append(Log("info", "engine.started", {"device": self._device, "pid": event.pid}))

    def engine_said(self, event: EngineSaid, now: float) -> None:
        """One message of the living engine."""
        message = event.message
        if isinstance(message, Begun | Step | Drawn | Undrawn):
            held = self.hand.get(message.token)
            if held is None or held.stage != "running":
                self._log("error", "engine.confused", message.token, said=message.NAME.decode())
                return
            self._about_job(held, event, now)
            return
        match message:
            case Loading():
                self.state, self.detail = "loading", message.stage
            case Ready():
                self.state, self.detail, self.load = "ready", "", message.load
                facts = {"pid": self.pid, "load_s": message.load_s, "offloaded": message.offloaded}
                self._out.append(Log("info", "engine.ready", {"device": self._device, **facts}))
            case Load():
                self.load = message.load
            case Broken():
                self._broken(message)

    def engine_died(self, event: EngineDied, now: float) -> None:
        """End what it drew; the next process is on its way."""
        dead, self.pid, self.load = self.pid, 0, DeviceLoad()
        self.deaths += 1
        if self.state != "broken":
            self.state, self.detail = "loading", f"restarting: the engine process {event.how}"
        self._out.append(Log("warning", "engine.died", {"device": self._device, "pid": dead, "how": event.how}))
        held = self.hand.running()
        if held is not None:
            self._undrawn(held, "engine_died", f"the engine process {event.how} while it drew", now)

    def _about_job(self, held: Held, event: EngineSaid, now: float) -> None:
        match event.message:
            case Begun():
                held.begun = True
                trace = {"trace_id": held.traceparent.split("-")[1]} if held.traceparent else {}
                self._log("info", "job.started", held.token, pid=self.pid, **trace)
                self._say(Started(epoch=UNSTAMPED, token=held.token))
            case Step() as step:
                self.load, held.step = step.load, step.step
                last = step.step >= step.steps - 1
                if last or step.preview is not None or now >= held.progress_at + PROGRESS_INTERVAL_S:
                    self._stepped(held, step, event.payload, now)
            case Drawn() as drawn:
                self.load = drawn.load
                self._drawn(held, drawn, event, now)
            case Undrawn() as undrawn:
                self.load = undrawn.load
                self._undrawn(held, undrawn.code, undrawn.message, now)

    def _stepped(self, held: Held, step: Step, payload: Sequence[Buffer], now: float) -> None:
        held.progress_at = now
        progress = WorkerProgress(
            epoch=UNSTAMPED,
            token=held.token,
            step=step.step,
            steps=step.steps,
            step_s=step.step_s,
            preview=step.preview,
            preview_index=step.preview_index,
            parts=step.parts,
        )
        self._say(progress, payload)

    def _broken(self, message: Broken) -> None:
        self.state, self.detail = "broken", message.message
        kind = ERRORS.get(message.code)
        fields = {"device": self._device, "code": message.code, "message": message.message}
        self._out.append(Log("error", "engine.broken", {**fields, "what_to_do": kind.next_step if kind else ""}))
        self._out.append(ToEngine(Quit()))

    # --- how a job ends ------------------------------------------------------------------------

    def _drawn(self, held: Held, drawn: Drawn, event: EngineSaid, now: float) -> None:
        if held.stop_code == "cancelled":
            self.hand.drop(held.token)
            return
        timings = drawn.timings
        self._log(
            "info",
            "job.done",
            held.token,
            elapsed_s=round(now - held.handed_at, 4),
            steps=held.job.drawn_steps,
            encode_s=timings.encode_s,
            denoise_s=timings.denoise_s,
            decode_s=timings.decode_s,
        )
        done = Done(
            epoch=UNSTAMPED,
            token=held.token,
            picture=drawn.picture,
            parts=drawn.parts,
            timings=timings,
            notes=drawn.notes,
        )
        held.payload = event.payload
        self._end(held, done)

    def _undrawn(self, held: Held, code: str, message: str, now: float) -> None:
        """No picture: `code` is the engine's word, unless we had asked it to stop."""
        stopped = held.stop_code if code in ("cancelled", "engine_died") else ""
        if held.stop_code == "cancelled":
            self.hand.drop(held.token)
            self._log("info", "job.stopped", held.token, elapsed_s=round(now - held.handed_at, 4))
        elif stopped == "draining":
            self._return(held, "draining")
        elif stopped == "job_timeout":
            limit_s = self._settings.job_timeout_s
            self._fail(held, "job_timeout", f"the job ran longer than job_timeout_s = {limit_s:g} s", now)
        elif stopped == "deadline_exceeded":
            self._fail(held, "deadline_exceeded", "the job's deadline passed while it was drawn", now)
        elif code == "cancelled":
            self._fail(held, "engine_error", "the engine stopped this job without being asked", now)
        elif code == "engine_died":
            self._fail(held, code, message, now)
        else:
            self._end_failed(held, code, message)  # the engine has logged it, with its traceback

    def _fail(self, held: Held, code: str, message: str, now: float) -> None:
        elapsed_s = round(now - held.handed_at, 4) if held.stage == "running" else 0.0
        self._log("error", "job.failed", held.token, elapsed_s=elapsed_s, code=code, message=message)
        self._end_failed(held, code, message)

    def _end_failed(self, held: Held, code: str, message: str) -> None:
        started = held.stage == "running"
        self._end(held, Fail(epoch=UNSTAMPED, token=held.token, code=code, message=message, started=started))

    def _end(self, held: Held, end: Done | Fail) -> None:
        held.stage, held.stop_code, held.end, held.inputs = "ended", "", end, ()
        self._say(end, held.payload)

    def _return(self, held: Held, reason: str) -> None:
        self.hand.drop(held.token)
        self._log("debug", "job.returned", held.token, reason=reason)
        self._say(Returned(epoch=UNSTAMPED, token=held.token, reason=reason))

    # --- the engine itself ---------------------------------------------------------------------

    def _stop(self, held: Held, code: StopCode, now: float) -> None:
        """Ask once; the first reason stays, but that nobody wants the job any more outweighs it."""
        if not held.stop_code:
            self._out.append(ToEngine(Stop(token=held.token)))
        if not held.stop_code or code == "cancelled":
            held.stop_code = code
        if code in ("job_timeout", "draining"):  # these may not wait for a step that never ends
            held.kill_at = min(held.kill_at, now + self._settings.job_stop_grace_s)

    def _say(self, message: Message, payload: Sequence[Buffer] = ()) -> None:
        self._out.append(ToRouter(message, payload))

    def _log(self, level: str, event: str, token: Token, **fields: object) -> None:
        self._out.append(Log(level, event, {"job_id": token.job_id, "device": self._device, **fields}))
