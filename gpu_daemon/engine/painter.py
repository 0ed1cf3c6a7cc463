"""One picture from order to file, and everything around it: placement, failures, timings, cleaning up.

Imports torch through its neighbours; made by flux.py. The drawing itself is pipeline.py's.
"""

import gc
import hashlib
from collections.abc import Sequence

import torch
from PIL import Image

from common.clock import monotonic_s
from common.errors import GenServeError
from common.log import get_logger
from common.messages import DeviceInfo, DeviceLoad, JobOrder, Picture, Timings
from common.settings import GpuDaemonSettings
from gpu_daemon.engine import failures, memory, pictures
from gpu_daemon.engine.backend import EngineMustEnd, OnStep, Painting, Report
from gpu_daemon.engine.inputs import start_of
from gpu_daemon.engine.pipeline import Pipeline
from gpu_daemon.memory_plan import plan_memory, weights_mb
from gpu_daemon.model_folder import ModelFolder


class Painter:
    """A loaded model on its device. Draws one picture at a time."""

    def __init__(self, settings: GpuDaemonSettings, device: DeviceInfo, folder: ModelFolder, report: Report) -> None:
        """Load and place. Raises GenServeError device_unavailable, out_of_memory or model_load_failed."""
        self._settings = settings
        self._device = device
        self._card = folder.card
        self._log = get_logger()
        try:
            self._pipeline = self._load(folder, report)
        except Exception as error:
            raise failures.of_loading(error) from error
        self.offloaded = self._pipeline.offloaded

    def draw(self, job: JobOrder, on_step: OnStep, files: Sequence[bytes] = ()) -> Painting:
        """Draw, as FluxBackend.draw says."""
        try:
            painting = self._paint(job, on_step, files)
        except Exception as error:  # whatever it is, it is typed and raised below
            failure = error
        else:
            if self._settings.empty_cache == "job":
                memory.empty_cache()
            return painting
        # Outside the `except`: in there the exception on its way would pin the job's tensors.
        raised = self._recover(failure, job)
        raise raised from (None if raised is failure else failure)

    def device_load(self) -> DeviceLoad:
        """The device's memory just now."""
        return memory.device_load(self._device.kind)

    def became_idle(self) -> None:
        """Give unused GPU memory back, unless never to."""
        self._release()

    def _load(self, folder: ModelFolder, report: Report) -> Pipeline:
        kind = self._device.kind
        needed_mb = weights_mb(folder.parameters, kind)
        if kind == "cpu":
            torch.set_num_threads(self._settings.cpu_threads)
            memory.check_host_memory(needed_mb)
        elif not torch.cuda.is_available():
            raise GenServeError(
                "device_unavailable",
                f"torch {torch.__version__} cannot use {self._device.device}: check the driver with nvidia-smi, "
                "and that torch is built for its CUDA version",
            )
        pipeline = Pipeline(folder.path, kind, report)
        report("moving to device", 0.8)
        pipeline.place(offloaded=kind == "cuda" and self._plan(needed_mb))
        return pipeline

    def _plan(self, needed_mb: int) -> bool:
        free_mb, total_mb = memory.cuda_memory_mb()
        plan = plan_memory(
            self._settings.offload,
            weights_mb=needed_mb,
            total_mb=total_mb,
            free_mb=free_mb,
            offload_below_gb=self._settings.offload_below_gb,
        )
        self._log.info(
            "memory.plan",
            device=self._device.device,
            offloaded=plan.offloaded,
            reason=plan.reason,
            weights_mb=needed_mb,
            free_mb=free_mb,
            total_mb=total_mb,
        )
        return plan.offloaded

    def _paint(self, job: JobOrder, on_step: OnStep, files: Sequence[bytes]) -> Painting:
        started = monotonic_s()
        if not self._card.is_native(job.drawn_width, job.drawn_height):
            raise GenServeError(
                "unsupported", f"{self._card.name} cannot draw {job.drawn_width}x{job.drawn_height}", param="size"
            )
        start = start_of(job, files)
        self._set_device()
        tokens_max = self._card.prompt_tokens_max

        def step(step: int, steps: int, step_s: float, index: int, image: Image.Image | None) -> None:
            on_step(step, steps, step_s, pictures.preview_of(image, index, job) if image is not None else None)

        drawn = self._pipeline.draw(job, tokens_max, step, start)
        if pictures.is_black(drawn.image):
            raise GenServeError("engine_error", "the model drew an all black picture, as a broken one does")
        saving = monotonic_s()
        data = pictures.encode(drawn.image, job, self._card)
        ended = monotonic_s()
        return Painting(
            data=data,
            picture=Picture(
                format=job.format,
                width=job.width,
                height=job.height,
                drawn_width=drawn.image.width,
                drawn_height=drawn.image.height,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            ),
            timings=Timings(
                encode_s=drawn.encode_s,
                denoise_s=drawn.denoise_s,
                preview_s=drawn.preview_s,
                decode_s=drawn.decode_s,
                save_s=ended - saving,
                total_s=ended - started,
            ),
            notes=self._pipeline.prompt_notes(job, tokens_max),
        )

    def _set_device(self) -> None:
        moved = self._pipeline.put_back()
        if moved:
            self._log.info("model.moved", device=self._device.device, parts=moved)
        self._log.debug("device.set", device=self._device.device, offloaded=self.offloaded)

    def _recover(self, failure: Exception, job: JobOrder) -> Exception:
        """What to raise for `failure`, after everything that it held is let go."""
        failures.let_go(failure)
        raised = failures.of_drawing(failure, job)
        if not isinstance(raised, EngineMustEnd):
            try:
                self._pipeline.clean_up()
                self._release()
            except Exception:  # the device answers nothing any more
                self._log.exception("engine.clean_up_failed", device=self._device.device)
                return EngineMustEnd("the device could not be cleaned up after a failure")
        return raised

    def _release(self) -> None:
        gc.collect()
        if self._settings.empty_cache != "never":
            memory.empty_cache()
