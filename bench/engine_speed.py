"""What the engine adds to diffusers: seconds a picture through FluxBackend and through plain FluxPipeline.

    python -m bench.engine_speed [--model-path FOLDER] [--size 1024x1024] [--steps 28] [--rounds 4]

Both hold the same weights on the same device and draw in turn, in alternating order, each with a seed of its
own. Without a folder the embedded model is drawn on whatever there is; `bench.flux_folder` writes one of
FLUX.1-dev's shapes. Pixels are compared too: they must be equal.
"""

import argparse
import io
import operator
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import FluxPipeline
from PIL import Image

from common.log import configure
from common.messages import DeviceInfo, JobOrder
from common.settings import GpuDaemonSettings, LogSettings
from gpu_daemon.devices import list_devices
from gpu_daemon.engine.backend import Painting
from gpu_daemon.engine.flux import FluxBackend
from gpu_daemon.engine.pipeline import DTYPES
from gpu_daemon.model_folder import open_model

PROMPT = "a lighthouse on a cliff at dawn, waves below, gulls above"


def device() -> DeviceInfo:
    """The first GPU, else the CPU."""
    return list_devices()[0] if torch.cuda.is_available() else DeviceInfo(device="cpu", kind="cpu")


def order(backend: FluxBackend, width: int, height: int, steps: int, seed: int) -> JobOrder:
    """One picture at its native size."""
    return JobOrder(
        prompt=PROMPT, negative_prompt="", model=backend.card.name, width=width, height=height, drawn_width=width,
        drawn_height=height, steps=steps, guidance_scale=backend.card.guidance_scale, true_cfg_scale=1.0, seed=seed,
        priority=0, client="", save=False,
    )  # fmt: skip


def timed(draw: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """(seconds, what was drawn)."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    drawn = draw(*args)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, drawn


def plain_pipeline(settings: GpuDaemonSettings, kind: str) -> Any:
    """Diffusers' own pipeline, as its documentation loads it."""
    pipe = FluxPipeline.from_pretrained(open_model(settings).path, dtype=DTYPES[kind], local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(kind)


class Pair:
    """The two ways to draw one picture."""

    def __init__(self, settings: GpuDaemonSettings, size: str, steps: int) -> None:
        self.backend = FluxBackend(settings, device())
        self.load_s, _ = timed(lambda: self.backend.load(lambda _stage, _fraction: None))
        self.card = self.backend.card
        self.width, self.height = map(int, size.split("x")) if size else (self.card.width, self.card.height)
        self.steps = steps or self.card.steps
        self._plain = plain_pipeline(settings, self.backend.device.kind)

    def plain(self, seed: int) -> Image.Image:
        """With diffusers alone; the file is made too, since the backend's time holds that."""
        drawn: Image.Image = self._plain(
            prompt=PROMPT, width=self.width, height=self.height, num_inference_steps=self.steps,
            guidance_scale=self.card.guidance_scale, max_sequence_length=self.card.prompt_tokens_max,
            generator=torch.Generator("cpu").manual_seed(seed),
        ).images[0]  # fmt: skip
        drawn.save(io.BytesIO(), "png", compress_level=1)
        return drawn

    def served(self, seed: int) -> Painting:
        """With the engine's backend."""
        job = order(self.backend, self.width, self.height, self.steps, seed)
        return self.backend.draw(job, lambda _step, _steps, _step_s, _preview: None)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", default="")
    parser.add_argument("--size", default="")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    configure("bench", LogSettings(level="warning"))
    pair = Pair(GpuDaemonSettings(model_path=args.model_path), args.size, args.steps)
    pair.plain(0), pair.served(0)
    plain_s: list[float] = []
    served_s: list[float] = []
    timings = []
    equal = True
    for seed in range(args.rounds):
        if seed % 2:
            (took_served, painting), (took_plain, picture) = timed(pair.served, seed), timed(pair.plain, seed)
        else:
            (took_plain, picture), (took_served, painting) = timed(pair.plain, seed), timed(pair.served, seed)
        plain_s.append(took_plain)
        served_s.append(took_served)
        timings.append(painting.timings)
        equal &= Image.open(io.BytesIO(painting.data)).tobytes() == picture.tobytes()
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{pair.card.name} {pair.width}x{pair.height}, {pair.steps} steps, on {name}")
    print(f"engine loaded and warm in {pair.load_s:8.1f} s")
    print(f"plain FluxPipeline + PNG  {statistics.median(plain_s):8.3f} s")
    print(f"FluxBackend.draw          {statistics.median(served_s):8.3f} s")
    print(f"their ratio               {statistics.median(map(operator.truediv, served_s, plain_s)):8.3f}")
    for stage in ("encode_s", "denoise_s", "decode_s", "save_s"):
        print(f"  {stage:12}            {statistics.median(getattr(t, stage) for t in timings):8.3f} s")
    print(f"pixels equal in every round: {equal}")
    print(f"memory: {pair.backend.device_load()}")


if __name__ == "__main__":
    main()
