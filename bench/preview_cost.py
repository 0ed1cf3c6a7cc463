"""What previews and edits cost beside the plain picture: seconds, and GPU memory beyond the weights.

    python -m bench.preview_cost [--model-path FOLDER] [--size 1024x1024] [--steps 28] [--rounds 3] [--edits]

One engine draws the same seeds without previews, with 3, and with 20, in a new order each round; the pictures
must be equal, bit for bit. With --edits (for a model that can) the plain picture is then the start of img2img
and of inpainting, over the same weights: what was allocated before and after must be equal.
"""

import argparse
import hashlib
import io
import operator
import statistics
from collections.abc import Callable, Sequence

import torch
from msgspec.structs import replace
from PIL import Image, ImageDraw

from bench.engine_speed import device, order, timed
from common.log import configure
from common.messages import InputPicture, JobOrder
from common.settings import GpuDaemonSettings, LogSettings
from gpu_daemon.engine.backend import Painting, Preview
from gpu_daemon.engine.flux import FluxBackend

PREVIEWS = (0, 3, 20)
STRENGTH = 0.6
MIB = 1024 * 1024


class Easel:
    """A loaded engine, and what it is asked."""

    def __init__(self, model_path: str, size: str, steps: int) -> None:
        self.backend = FluxBackend(GpuDaemonSettings(model_path=model_path), device())
        self.backend.load(lambda _stage, _fraction: None)
        card = self.backend.card
        self.width, self.height = map(int, size.split("x")) if size else (card.width, card.height)
        self.steps = steps or card.steps

    def job(self, seed: int, previews: int = 0) -> JobOrder:
        """The picture of this seed."""
        return replace(order(self.backend, self.width, self.height, self.steps, seed), previews=previews)

    def drawn(self, job: JobOrder, files: Sequence[bytes] = ()) -> tuple[float, Painting, list[Preview]]:
        """(seconds, the picture, its previews)."""
        seen: list[Preview] = []

        def on_step(_step: int, _steps: int, _step_s: float, preview: Preview | None) -> None:
            if preview is not None:
                seen.append(preview)

        took_s, painting = timed(self.backend.draw, job, on_step, files)
        return took_s, painting, seen


def previews(easel: Easel, rounds: int) -> None:
    """Seconds a picture by how many previews it shows."""
    seconds: dict[int, list[float]] = {count: [] for count in PREVIEWS}
    share_s: dict[int, list[float]] = {count: [] for count in PREVIEWS}
    equal, sides = True, ""
    for seed in range(rounds):
        files = set()
        turn = seed % len(PREVIEWS)
        for count in PREVIEWS[turn:] + PREVIEWS[:turn]:
            took_s, painting, seen = easel.drawn(easel.job(seed, count))
            seconds[count].append(took_s)
            share_s[count].append(painting.timings.preview_s / max(len(seen), 1))
            files.add(painting.data)
            sides = f"{seen[0].picture.width}x{seen[0].picture.height}, {len(seen[0].data)} bytes" if seen else sides
        equal &= len(files) == 1
    for count in PREVIEWS:
        ratio = statistics.median(map(operator.truediv, seconds[count], seconds[0]))
        each = f", {statistics.median(share_s[count]):.4f} s a preview" if count else ""
        print(f"{count:3} previews  {statistics.median(seconds[count]):8.3f} s  ratio {ratio:.3f}{each}")
    print(f"a preview is {sides}; pictures equal with and without: {equal}")


def edits(easel: Easel, rounds: int) -> None:
    """Img2img and inpainting, beside the plain picture."""
    _, painting, _ = easel.drawn(easel.job(0))
    hole = Image.new("RGBA", (easel.width, easel.height), (0, 0, 0, 255))
    ImageDraw.Draw(hole).ellipse(
        (easel.width // 4, easel.height // 4, easel.width // 2, easel.height // 2), (0, 0, 0, 0)
    )
    mask = io.BytesIO()
    hole.save(mask, "png")
    files = {"image": painting.data, "mask": mask.getvalue()}
    for name, kinds in {"plain": (), "img2img": ("image",), "inpainting": ("image", "mask")}.items():
        inputs = tuple(told(easel, kind, files[kind]) for kind in kinds)
        asked = replace(easel.job(1), inputs=inputs, strength=STRENGTH if inputs else 1.0)
        easel.drawn(asked, [files[kind] for kind in kinds])
        before_mb = memory_mb(torch.cuda.memory_allocated) if torch.cuda.is_available() else 0.0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        took_s = statistics.median(easel.drawn(asked, [files[kind] for kind in kinds])[0] for _ in range(rounds))
        line = f"{name:11} {took_s:8.3f} s, {took_s / asked.drawn_steps:.3f} s a step of {asked.drawn_steps}"
        if torch.cuda.is_available():
            peak_mb, after_mb = memory_mb(torch.cuda.max_memory_allocated), memory_mb(torch.cuda.memory_allocated)
            line += f"; allocated {before_mb:.0f} MiB before, {after_mb:.0f} after, {peak_mb:.0f} at most"
        print(line)


def told(easel: Easel, kind: str, data: bytes) -> InputPicture:
    """What a job says of an input file."""
    digest = hashlib.sha256(data).hexdigest()
    size = {"width": easel.width, "height": easel.height, "bytes": len(data)}
    return InputPicture(kind="mask" if kind == "mask" else "image", format="png", sha256=digest, **size)


def memory_mb(ask: Callable[[], int]) -> float:
    """MiB on the GPU."""
    return ask() / MIB


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", default="")
    parser.add_argument("--size", default="")
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--edits", action="store_true")
    args = parser.parse_args()
    configure("bench", LogSettings(level="warning"))
    easel = Easel(args.model_path, args.size, args.steps)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"{easel.backend.card.name} {easel.width}x{easel.height}, {easel.steps} steps, on {name}")
    easel.drawn(easel.job(0, 1))
    previews(easel, args.rounds)
    if args.edits:
        edits(easel, args.rounds)


if __name__ == "__main__":
    main()
