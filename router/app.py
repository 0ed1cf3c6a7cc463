"""The router as a process: its sockets, its journal, its signals, its start and its end."""

import os
from functools import partial
from importlib.metadata import version
from pathlib import Path

import zmq
from structlog.typing import FilteringBoundLogger

from common import clock, log, process
from common.errors import GenServeError
from common.keys import SERVER_FILE, load_key
from common.notify import Systemd
from common.restarts import Restarts
from common.roles import Side
from common.settings import Loaded, RouterSettings
from common.sockets import Socket, router_socket
from common.traces import open_traces
from router.broker import Broker
from router.door import Door
from router.journal import Journal, JournalError
from router.loop import Loop
from router.memory_journal import MemoryJournal
from router.sqlite_journal import SqliteJournal
from router.standing import standing
from router.state_folder import state_folder
from router.tracing import TraceWriter

LINGER_MS = 1000  # for what was sent last, when stopping
READING_S_MAX = 600  # what systemd is asked to wait for a long journal
EPOCHS_A_SECOND = 1000  # epochs start at the wall clock in these, so that they lie beyond a former router's


def run(loaded: Loaded[RouterSettings]) -> int:
    """Serve until stopped: SIGTERM or SIGINT drains, a second one ends at once. The exit status."""
    settings = loaded.settings
    process.name_process("genserve router")
    process.allow_files()
    logger = log.configure("router", loaded.log)
    systemd, restarts = Systemd(), Restarts()
    restarts.hold_back(systemd)
    systemd.tell(STATUS="reading the journal", EXTEND_TIMEOUT_USEC=READING_S_MAX * 1_000_000)
    context: zmq.Context[Socket] = zmq.Context()
    try:
        door = _door(settings, context, logger)
        clients = _listen("client", settings.client_endpoint, context, door)
        workers = _listen("worker", settings.worker_endpoint, context, door)
        traces = open_traces("genserve-router", settings.traces_endpoint, os.environ, version=version("genserve"))
        journal = _journal(settings, clients, logger)
    except GenServeError as error:
        context.destroy(linger=0)
        return process.exit_config(error)
    broker = Broker(settings, first_epoch=int(clock.wall_s() * EPOCHS_A_SECOND), durable=journal.durable)
    writer = TraceWriter(traces) if traces is not None else None
    broker.state.traced = writer is not None
    loop = Loop(broker, journal, clients, workers, logger=logger, level=loaded.log.level, door=door, traces=writer)
    process.on_stop_signals(loop.drain, loop.stop, orphaned=partial(loop.drain, patient=True))
    keys = "none: this machine only" if door is None else str(settings.peers_file)
    logger.info("router.listening", clients=_endpoint(clients), workers=_endpoint(workers), peers=keys)
    systemd.watch(loop.checks())
    linger_ms = LINGER_MS
    try:
        loop.run(lambda now: systemd.tend(now, partial(standing, broker.state)))
    except JournalError as error:
        logger.error("journal.failed", cause=str(error))  # noqa: TRY400  # the cause is the disk, not a line of ours
        return process.EXIT_IOERR
    except GenServeError as error:
        linger_ms = 0
        return process.exit_config(error)
    finally:
        systemd.end()
        journal.close()
        if traces is not None:
            traces.close()
        if door is not None:
            door.close()
        context.destroy(linger=linger_ms)
    logger.info("router.stopped")
    restarts.ended_well()
    return process.EXIT_OK


def _door(settings: RouterSettings, context: zmq.Context[Socket], logger: FilteringBoundLogger) -> Door | None:
    key = load_key(settings.server_key_file, os.environ, SERVER_FILE, "server")
    if key is None:
        return None
    return Door(context, key, Path(settings.peers_file), logger=logger, now=clock.monotonic_s())


def _listen(side: Side, endpoint: str, context: zmq.Context[Socket], door: Door | None) -> Socket:
    return router_socket(context, endpoint) if door is None else door.listen(side, endpoint)


def _journal(settings: RouterSettings, clients: Socket, logger: FilteringBoundLogger) -> Journal:
    if settings.journal == "memory":
        return MemoryJournal()
    port = int(_endpoint(clients).rpartition(":")[2])
    return SqliteJournal(
        state_folder(settings.state_dir, port, os.environ),
        disk_free_min_mb=settings.disk_free_min_mb,
        reserve_mb=settings.journal_reserve_mb,
        logger=logger,
    )


def _endpoint(socket: Socket) -> str:
    return bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
