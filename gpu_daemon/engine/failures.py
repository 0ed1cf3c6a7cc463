"""What went wrong while drawing or loading, as a typed error; and letting go of what the exception held.

The message is for a client and tells nothing of the inside; the original is chained and its traceback
belongs in the engine's log.
"""

import traceback

import torch

from common.errors import GenServeError
from common.messages import JobOrder
from gpu_daemon.engine.backend import EngineMustEnd, Stopped

LOAD_MESSAGE_CHARS_MAX = 2000


def of_drawing(error: Exception, job: JobOrder) -> Exception:
    """What to raise for an exception met while drawing `job`."""
    if isinstance(error, Stopped | GenServeError):
        return error
    if _is_out_of_memory(error):
        return GenServeError(
            "out_of_memory",
            f"a picture of {job.drawn_width}x{job.drawn_height} pixels needs more memory than this device has free",
        )
    if _is_sticky(error):
        return EngineMustEnd("the GPU reported an error that only a new engine process can clear")
    return GenServeError("engine_error", f"drawing failed with {type(error).__name__}")


def of_loading(error: Exception) -> GenServeError:
    """What to raise for an exception met while loading; its reader is the operator."""
    if isinstance(error, GenServeError):
        return error
    if _is_out_of_memory(error):
        return GenServeError("out_of_memory", "the model does not fit into this device's memory")
    text = str(error)[:LOAD_MESSAGE_CHARS_MAX]
    if _is_sticky(error):
        return GenServeError("device_unavailable", f"the GPU reported an error while the model was loaded: {text}")
    return GenServeError("model_load_failed", f"the model cannot be loaded: {type(error).__name__}: {text}")


def let_go(error: BaseException) -> None:
    """Drop the local variables that the tracebacks of `error` and its causes hold, and with them their tensors.

    Lines and names stay, so the traceback can still be printed. To be called outside the `except` block.
    """
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        todo += [one.__cause__, one.__context__]


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _is_sticky(error: Exception) -> bool:
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in ("CUDA error", "CUDNN_STATUS"))
    )
