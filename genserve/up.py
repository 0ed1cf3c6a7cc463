"""`genserve up`: every part on this machine, watched from the first second to the last.

Start: all processes at once; their progress is read from the router's STATUS. Serving: a part that dies is
started again, one that a person must mend (EXIT_CONFIG) stops everything. Stop: the gateway first, so that
its open requests finish, then the daemons, which finish what runs, then the router, which keeps what waits.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from common.clock import monotonic_s
from common.errors import GenServeError
from common.log import configure
from common.messages import StatusReply, WorkerView
from common.process import EXIT_CONFIG, EXIT_OK, name_process, on_stop_signals
from genserve.children import Children, Exit
from genserve.client import Client, RouterAddress
from genserve.first_picture import ROUTE, FirstPicture, gateway_answers
from genserve.flags import api_key
from genserve.parts import Plan, plan
from genserve.stages import ReadyNews, Stages, show_ready

LOOK_INTERVAL_S = 0.25
ANSWER_TIMEOUT_S = 0.3  # of the router while the start is watched
PICTURE = "first picture"
TRY_PROMPT = "a large red circle above a small blue square on a yellow background"
DEFAULT_HTTP_PORT = 12411
EMBEDDED_NOTE = (
    "genserve-shapes, the small model inside, draws coloured shapes where the prompt puts them, and nothing else. "
    "README.md, “A real FLUX”, tells how to serve one that draws everything."
)


def up(
    *,
    env: Mapping[str, str],
    gpus: str | None,
    host: str | None,
    port: int | None,
    no_auth: bool,
    state_dir: str | None,
    daemon_flags: Mapping[str, str | None],
    log_flags: Mapping[str, str | None],
    first_picture: bool,
) -> int:
    """Start everything, serve until a signal, stop everything; the exit status."""
    console = Console(stderr=True)
    watched = sys.stdout.isatty() and console.is_terminal
    the_plan = plan(
        env=env,
        gpus=gpus,
        host=host,
        port=port,
        no_auth=no_auth,
        state_dir=state_dir,
        daemon_flags=daemon_flags,
        log_flags=log_flags,
        watched=watched,
    )
    name_process(f"genserve up --port {the_plan.http_port}")
    return Up(the_plan, console, watched=watched, first_picture=first_picture).run()


class Up:
    """One run of all parts."""

    def __init__(self, the_plan: Plan, console: Console, *, watched: bool, first_picture: bool) -> None:
        self._plan = the_plan
        self._console = console
        self._watched = watched  # a person reads both outputs on a terminal: no JSON of our own between
        self._log = configure("up", the_plan.log)
        router = RouterAddress(the_plan.client_endpoint, the_plan.client_key)
        self._client = Client(router, answer_timeout_s=ANSWER_TIMEOUT_S)
        folder = Path(the_plan.output_dir)
        key = api_key(None)
        first_picture = first_picture and (bool(key) or not the_plan.http_keys)
        self._picture = FirstPicture(the_plan.http_host, the_plan.http_port, folder, key) if first_picture else None
        names = [part.name for part in the_plan.parts] + ([PICTURE] if first_picture else [])
        self._stages = Stages(names, console)
        on_line = _write_line if watched else self._stages.tell  # else it is what they say on stderr
        self._children = Children(the_plan.parts, held=watched, on_line=on_line)
        self._signals = 0

    def run(self) -> int:
        """Start, serve, stop; the exit status."""
        on_stop_signals(self._signalled, self._signalled)
        refused: Exit | None = None
        try:
            refused = self._start() or self._serve()
        finally:
            self._stages.stop()
            self._children.release_lines()
            self._stop(at_once_after=1 if refused else 2)
        if refused is None:
            return EXIT_OK
        self._stages.tell(f"{refused.name} could not start:")  # once more, where a person looks: at the end
        for line in refused.reason:
            self._stages.tell(line)
        return EXIT_CONFIG

    def _signalled(self) -> None:
        self._signals += 1

    # --- start ---------------------------------------------------------------------------------

    def _start(self) -> Exit | None:
        """Until the service is ready, a signal comes, or a part ends that a person must mend: that one."""
        self._stages.start()
        for part in self._plan.parts:
            self._stages.set(part.name, "working", "starting")
        look_at = 0.0
        while not self._signals:
            if refused := self._tend():
                return refused
            if (now := monotonic_s()) < look_at:
                continue
            look_at = now + LOOK_INTERVAL_S
            try:
                status = self._client.status()
            except GenServeError:  # not up yet
                continue
            if self._look(status):
                self._ready(status)
                return None
        return None

    def _look(self, status: StatusReply) -> bool:
        """Show how far the start has come; is it complete?"""
        self._stages.set("router", "done", f"clients connect to {self._plan.client_endpoint}")
        workers = {worker.device.device: worker for worker in status.workers}
        for part in self._plan.daemons:
            self._show_daemon(part.name, workers.get(part.name))
        if self._stages.state("gateway") != "done" and gateway_answers(self._plan.http_host, self._plan.http_port):
            self._stages.set("gateway", "done", self._plan.http_url)
        states = [self._stages.state(part.name) for part in self._plan.daemons]
        if "done" not in states or "working" in states or self._stages.state("gateway") != "done":
            return False
        return self._picture is None or self._look_at_picture(self._picture, status)

    def _show_daemon(self, name: str, worker: WorkerView | None) -> None:
        if worker is None:  # not registered yet
            return
        if worker.state == "ready":
            self._stages.set(name, "done", f"{', '.join(worker.models)} on {worker.device.name or name}")
        elif worker.state == "broken":
            self._stages.set(name, "failed", worker.detail)
        else:
            self._stages.set(name, "working", worker.detail or worker.state)

    def _look_at_picture(self, picture: FirstPicture, status: StatusReply) -> bool:
        if self._stages.state(PICTURE) == "waiting":
            self._stages.set(PICTURE, "working", "asking for it over HTTP")
            picture.start(embedded=_all_embedded(status))
        elif picture.outcome is None:
            steps = [f"step {w.step}/{w.steps} on {w.device.device}" for w in status.workers if w.busy]
            self._stages.set(PICTURE, "working", ", ".join(steps) or "waiting", quiet=True)
        elif picture.outcome.error:
            self._stages.set(PICTURE, "failed", picture.outcome.error)
        else:
            self._stages.set(PICTURE, "done", picture.outcome.path)
        return picture.outcome is not None

    def _ready(self, status: StatusReply) -> None:
        self._stages.stop()
        outcome = self._picture.outcome if self._picture else None
        warning = default_unserved(status)
        failed = ""
        if outcome and outcome.error:
            failed = f"failed: {outcome.error}; {'see the warning' if warning else outcome.next_step}"
        router = ["--router", self._plan.client_endpoint] if self._plan.http_port != DEFAULT_HTTP_PORT else []
        router += ["--key-file", self._plan.client_key_file] if self._plan.client_key_file else []
        news = ReadyNews(
            url=self._plan.http_url,
            picture=outcome.path if outcome else "",
            picture_facts=outcome.facts if outcome else "",
            picture_failed=failed,
            warning=warning,
            generate=shlex.join([*own_command(), "generate", TRY_PROMPT, "-o", "picture.png", *router]),
            curl=f"curl {self._plan.http_url}{ROUTE} -H 'Content-Type: application/json' "
            + """-H "Authorization: Bearer $GENSERVE_API_KEY" """ * self._plan.http_keys
            + f"""-d '{{"prompt": "{TRY_PROMPT}"}}'""",
            status=shlex.join([*own_command(), "status", *router]),
            note=EMBEDDED_NOTE if _all_embedded(status) else "",
            took_s=self._stages.elapsed_s,
        )
        show_ready(self._console, news)
        self._note("info", "up.ready", url=news.url, first_picture=news.picture, elapsed_s=round(news.took_s, 3))
        if news.picture_failed:
            self._note("warning", "up.first_picture_failed", message=news.picture_failed)
        if news.warning:
            self._note("warning", "up.default_model_unserved", message=news.warning)

    # --- serving -------------------------------------------------------------------------------

    def _serve(self) -> Exit | None:
        """Until a signal comes, or a part ends that a person must mend: that one."""
        self._children.release_lines()
        while not self._signals:
            if refused := self._tend():
                return refused
        return None

    def _tend(self) -> Exit | None:
        """Keep the parts running for a moment; the one that must not be started again."""
        for exit_ in self._children.tend():
            for line in exit_.unseen:
                self._stages.tell(line)
            if exit_.restart_in_s is None:
                self._stages.set(exit_.name, "failed", "cannot start")
                self._stages.tell(f"{exit_.name} cannot start until what it says above is mended; stopping the others")
                self._note("error", "part.refused", part=exit_.name, status=exit_.status)
                return exit_
            self._stages.set(exit_.name, "working", f"{exit_}; starting it again", quiet=True)
            self._stages.tell(f"{exit_.name} {exit_}; starting it again in {exit_.restart_in_s:g} s")
            self._note("warning", "part.died", part=exit_.name, how=str(exit_), restart_in_s=exit_.restart_in_s)
        return None

    # --- stop ----------------------------------------------------------------------------------

    def _stop(self, *, at_once_after: int) -> None:
        """Drain in order; at once when that many signals have come."""

        def at_once() -> bool:
            return self._signals >= at_once_after

        self._stages.tell("draining… (Ctrl-C again stops at once)")
        self._note("info", "up.draining")
        if self._picture is not None and self._picture.outcome is None:
            self._picture.cancel()
        daemons = [part.name for part in self._plan.daemons]
        for names in (["gateway"], daemons, ["router"]):
            if names == ["router"] and self._plan.queue_outlives:
                self._tell_what_waits()
            for name in self._children.stop(names, at_once=at_once):
                self._stages.tell(f"{name} did not stop in time and was killed")
                self._note("warning", "part.killed", part=name)
        self._children.stop_at_once()
        self._children.close()
        self._client.close()
        self._stages.tell("stopped")
        self._note("info", "up.stopped")

    def _tell_what_waits(self) -> None:
        """How many jobs the router leaves to the next start."""
        try:
            stats = self._client.status().stats
        except GenServeError:  # it has died, or never was ready
            return
        jobs = stats.queued + stats.running
        if jobs:
            self._stages.tell(f"{jobs} job{' waits' if jobs == 1 else 's wait'} for the next start")
            self._note("info", "up.jobs_left", jobs=jobs)

    def _note(self, level: str, event: str, **fields: object) -> None:
        """One line for programs, where a person does not watch both outputs."""
        if not self._watched:
            getattr(self._log, level)(event, **fields)


def default_unserved(status: StatusReply) -> str:
    """What to say where no GPU serves the default model once all of them are ready; '' where one does."""
    served = [model.card.name for model in status.models if model.workers]
    if status.default_model in served:
        return ""
    return (
        f"no GPU serves the default model, router.default_model = {status.default_model!r}, so requests that name "
        f"no model fail; set it to one of {', '.join(served)}, or leave it out and start again"
    )


def own_command() -> list[str]:
    """How this very command is called from here, so that what is shown can be copied."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return ["python", "-m", "genserve"]
    if shutil.which("genserve") is not None:
        return ["genserve"]
    here = Path.cwd()
    path = Path(os.path.abspath(called))  # noqa: PTH100  # resolve() would follow a virtual environment's links
    return [str(path.relative_to(here) if path.is_relative_to(here) else path)]


def _all_embedded(status: StatusReply) -> bool:
    return all(model.card.embedded for model in status.models if model.workers)


def _write_line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
