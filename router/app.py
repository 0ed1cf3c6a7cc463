"""The router as a process: its sockets, its signals, its start and its end."""

import zmq

from common import clock, log, notify, process
from common.errors import GenServeError
from common.settings import Loaded, RouterSettings
from common.sockets import Socket, router_socket
from router.broker import Broker
from router.loop import Loop
from router.memory_journal import MemoryJournal

LINGER_MS = 1000  # for what was sent last, when stopping
EPOCHS_A_SECOND = 1000  # epochs start at the wall clock in these, so that they lie beyond a former router's


def run(loaded: Loaded[RouterSettings]) -> int:
    """Serve until stopped: SIGTERM or SIGINT drains, a second one ends at once. The exit status."""
    settings = loaded.settings
    process.name_process("genserve router")
    logger = log.configure("router", loaded.log)
    context: zmq.Context[Socket] = zmq.Context()
    try:
        clients = router_socket(context, settings.client_endpoint)
        workers = router_socket(context, settings.worker_endpoint)
    except GenServeError as error:
        context.destroy(linger=0)
        return process.exit_config(error)
    journal = MemoryJournal()
    broker = Broker(settings, first_epoch=int(clock.wall_s() * EPOCHS_A_SECOND))
    loop = Loop(broker, journal, clients, workers, logger=logger, level=loaded.log.level)
    process.on_stop_signals(loop.drain, loop.stop)
    logger.info("router.listening", clients=_endpoint(clients), workers=_endpoint(workers))
    notify.notify(READY=1)
    try:
        loop.run()
    finally:
        notify.notify(STOPPING=1)
        journal.close()
        context.destroy(linger=LINGER_MS)
    logger.info("router.stopped")
    return process.EXIT_OK


def _endpoint(socket: Socket) -> str:
    return bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
