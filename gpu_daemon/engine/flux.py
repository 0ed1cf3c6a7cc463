"""The backend that draws with diffusers' FluxPipeline.

Importing this file imports no torch: `load` does, so that the engine process can say what it is doing
meanwhile, and a folder that cannot be served is refused before. All that needs torch is painter.py's.
"""

import gc
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.errors import GenServeError
from common.messages import DeviceInfo, DeviceLoad, JobOrder
from common.settings import GpuDaemonSettings
from gpu_daemon.engine.backend import OnStep, Painting, Report
from gpu_daemon.model_folder import open_model

if TYPE_CHECKING:
    from gpu_daemon.engine.painter import Painter

WARM_UP_STEPS = 1
ENVIRONMENT = {  # read by the libraries while they are imported
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",  # their warnings about cut prompts would print the prompts
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin while they wait make two engines on one CPU thirty times slower than one.
    "OMP_WAIT_POLICY": "PASSIVE",
}


class FluxBackend:
    """Draws with the FLUX folder that the settings name, on the one device that this process sees.

    Made in milliseconds: the folder is checked and its card read; raises as `open_model` does.
    """

    def __init__(self, settings: GpuDaemonSettings, device: DeviceInfo) -> None:
        self._settings = settings
        self._folder = open_model(settings)
        self._painter: Painter | None = None
        self.card = self._folder.card
        self.device = device
        self.offloaded = False

    def load(self, report: Report) -> None:
        """Import torch, load the model, place it, draw the warm-up picture.

        Raises GenServeError device_unavailable, out_of_memory or model_load_failed, and as `draw` does.
        """
        os.environ.update(ENVIRONMENT)
        report("importing torch", 0.0)
        try:
            from gpu_daemon.engine.painter import Painter  # noqa: PLC0415  # seconds long, and reported
        except ImportError as error:
            raise GenServeError(
                "model_load_failed", f"{error}; install what drawing needs: pip install 'genserve[gpu]'"
            ) from error
        self._painter = Painter(self._settings, self.device, self._folder, report)
        self.offloaded = self._painter.offloaded
        report("warming up", 0.9)
        self._painter.draw(self._warm_up(), lambda *_step: None)
        gc.freeze()  # the libraries stay; collecting after a failure need not look at them again

    def draw(self, job: JobOrder, on_step: OnStep, files: Sequence[bytes] = ()) -> Painting:
        """Draw; each step's own seconds are told to `on_step`, and what that raises ends the job.

        Raises Stopped, EngineMustEnd, or GenServeError: out_of_memory, engine_error, unsupported for a
        drawn size that is not native to the model, or invalid_request for `files` that are not as the job says.
        """
        return self._loaded().draw(job, on_step, files)

    def device_load(self) -> DeviceLoad:
        """The device's memory just now, as torch sees it; zeros before it is loaded."""
        return self._painter.device_load() if self._painter else DeviceLoad()

    def became_idle(self) -> None:
        """Give unused GPU memory back, unless gpu_daemon.empty_cache is 'never'."""
        self._loaded().became_idle()

    def _loaded(self) -> "Painter":
        assert self._painter, "load() comes first"
        return self._painter

    def _warm_up(self) -> JobOrder:
        """A small picture: it makes the libraries do, once, what they put off until their first use."""
        card = self.card
        width, height = card.nearest_native(card.side_min, card.side_min, area=card.side_min**2)
        return JobOrder(
            prompt="warm-up",
            negative_prompt="",
            model=card.name,
            width=width,
            height=height,
            drawn_width=width,
            drawn_height=height,
            steps=WARM_UP_STEPS,
            guidance_scale=card.guidance_scale,
            true_cfg_scale=1.0,
            seed=0,
            priority=0,
            client="",
            save=False,
        )
