"""How a GPU daemon stands, on one line for the person who asks systemd: what it loads, what it draws.

Pure. Only reads.
"""

from common.health import Standing
from gpu_daemon.session import Session

JOB_CHARS = 8
LOOK_AGAIN_S = 60.0  # by then it says again that it still loads
STOP_MARGIN_S = 15.0  # for acknowledgements, and for the engine to end


def standing(session: Session, engine_started_now: float, now: float) -> Standing:
    """'drawing job 1a2b3c4d step 12/28 on cuda:0'."""
    work, introduction = session.work, session.introduction
    device, model = introduction.device.device, introduction.models[0].name
    held = work.hand.running()
    if session.draining:
        text = f"draining: {'1 job still runs' if held else 'nothing runs any more'}"
        return Standing(text, stopping=True, needs_s=work.stop_s_max + STOP_MARGIN_S)
    if work.state == "broken":
        return Standing(f"{device} cannot be used: {work.detail}", usable=False)
    if work.state != "ready":
        text = f"loading {model} on {device}, {now - engine_started_now:.0f} s: {work.detail}"
        return Standing(text, usable=False, needs_s=0.0 if work.deaths else LOOK_AGAIN_S)
    if held is None:
        text = f"{model} ready on {device}, nothing to draw"
    else:
        step = f" step {held.step}/{held.job.steps}" if held.step else ""
        text = f"drawing job {held.token.job_id[:JOB_CHARS]}{step} on {device}"
    return Standing(text if session.registered else f"{text}; the router does not answer")
