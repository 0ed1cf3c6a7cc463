"""How the gateway stands, on one line for the person who asks systemd: where it listens, what is open.

Pure.
"""

from common.health import Standing

STOP_MARGIN_S = 10.0  # for what is done when all is drained


def standing(url: str, *, router: str, connected: bool, requests: int, drain_s: float | None) -> Standing:
    """'listening on http://127.0.0.1:12411, 3 requests open'.

    `router`: where it is, or is looked for. `drain_s`: how long open requests may take, once it is stopping.
    """
    if drain_s is not None:
        open_ = "1 request is" if requests == 1 else f"{requests} requests are"
        return Standing(f"draining: {open_} still open", stopping=True, needs_s=drain_s + STOP_MARGIN_S)
    open_ = "1 request" if requests == 1 else f"{requests} requests"
    missing = "" if connected else f"; no router at {router}"
    return Standing(f"listening on {url}, {open_} open{missing}")
