"""The FluxPipeline itself: loading its parts, placing them, drawing one picture with it.

Knows no messages but the order, and no files but the folder.
The pixels are exactly those of plain `FluxPipeline.from_pretrained(folder)(prompt=…, generator=
torch.Generator('cpu').manual_seed(seed), …)` of the same dtype and thread count: nothing here touches
torch's defaults, and noise is drawn on the CPU on every device, so that a seed means the same everywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    FluxTransformer2DModel,
)
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers import CLIPTextModel, T5EncoderModel

from common.clock import monotonic_s
from common.errors import GenServeError
from common.messages import JobOrder, Note
from gpu_daemon.engine import memory
from gpu_daemon.engine.backend import Report
from gpu_daemon.engine.estimate import MASKED_TENSORS, TENSORS, allow, estimate
from gpu_daemon.engine.inputs import Start, keep_outside
from gpu_daemon.engine.previews import preview_steps

_CPU, _CUDA = torch.device("cpu"), torch.device("cuda", 0)  # CUDA_VISIBLE_DEVICES shows this process one GPU
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}


@dataclass(frozen=True)
class Drawn:
    """The picture as drawn, and the seconds of each stage."""

    image: Image.Image
    encode_s: float
    denoise_s: float
    preview_s: float
    decode_s: float


OnDrawnStep = Callable[[int, int, float, int, Image.Image | None], None]
"""(step from 1, steps, its seconds, number of the preview from 0, the preview that follows it)"""


class Pipeline:
    """A loaded FluxPipeline on one device, 'cpu' or 'cuda'."""

    def __init__(self, folder: Path, kind: str, report: Report) -> None:
        """Load every part into host memory. Raises whatever the libraries raise."""
        self._device = _CUDA if kind == "cuda" else _CPU
        self.offloaded = False
        self._pipe = _load(folder, DTYPES[kind], report)
        self._pipe.set_progress_bar_config(disable=True)
        allow(self._pipe)
        self._editors: dict[type, Any] = {}  # pipelines over the same parts, made when first needed
        self._modules = {n: part for n, part in self._pipe.components.items() if isinstance(part, torch.nn.Module)}

    def place(self, *, offloaded: bool) -> None:
        """Move the parts to the device or, `offloaded`, let each visit it only while it runs."""
        self.offloaded = offloaded
        if offloaded:
            self._pipe.enable_model_cpu_offload(device=self._device)
        else:
            self._pipe.to(self._device)

    def put_back(self) -> list[str]:
        """Move parts that are not on the device there; the names of those moved."""
        return [] if self.offloaded else memory.put_back(self._modules, self._device)

    def clean_up(self) -> None:
        """After a failure: where offloaded, send the parts home again."""
        self._pipe.maybe_free_model_hooks()

    def prompt_notes(self, job: JobOrder, tokens_max: int) -> tuple[Note, ...]:
        """A note 'prompt_cut' for each prompt that is longer than the T5 encoder reads.

        CLIP's cut at 77 tokens is how FLUX is made: it gives the mood, T5 the words.
        """
        notes = []
        texts = {"prompt": job.prompt}
        if job.true_cfg_scale > 1:
            texts["negative prompt"] = job.negative_prompt
        for name, text in texts.items():
            tokens, room = len(self._pipe.tokenizer_2(text)["input_ids"]) - 1, tokens_max - 1  # less the end mark
            if tokens > room:
                words = f"the {name} has {tokens} tokens; the model used the first {room} and ignored the rest"
                notes.append(Note(code="prompt_cut", message=words))
        return tuple(notes)

    @torch.no_grad()
    def draw(self, job: JobOrder, tokens_max: int, on_step: OnDrawnStep, start: Start | None = None) -> Drawn:
        """Draw at the job's drawn size. Raises what `on_step` raises, engine_error, or whatever torch raises."""
        started = self._now()
        prompts = self._encode(job, tokens_max)
        encoded = stepped = self._now()
        previewed_s, steps = 0.0, job.drawn_steps
        shown = preview_steps(job.previews, steps)
        pipe, starting, tensors_told = self._starting(job, start)

        def step_end(pipe: Any, index: int, _timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
            nonlocal stepped, previewed_s
            step, before = index + 1, self._now()
            if step == steps:
                _check_finite(tensors["latents"], "latents")
            if step in shown:
                preview = estimate(pipe, tensors, job.drawn_width, job.drawn_height, self._device)
                on_step(step, steps, before - stepped, shown.index(step), preview)
                previewed_s += self._now() - before
            else:
                on_step(step, steps, before - stepped, 0, None)
            stepped = self._now()
            return {}

        pixels = pipe(
            **prompts,
            **starting,
            width=job.drawn_width,
            height=job.drawn_height,
            num_inference_steps=job.steps,
            guidance_scale=job.guidance_scale,
            true_cfg_scale=job.true_cfg_scale,
            generator=torch.Generator("cpu").manual_seed(job.seed),
            max_sequence_length=tokens_max,
            output_type="pt",
            callback_on_step_end=step_end,
            callback_on_step_end_tensor_inputs=tensors_told if shown else TENSORS[:1],
        ).images
        if start is not None:
            self.clean_up()
        _check_finite(pixels, "pixels")
        processor = self._pipe.image_processor
        image: Image.Image = processor.numpy_to_pil(processor.pt_to_numpy(pixels))[0]
        if start is not None:
            image = keep_outside(start, image)
        return Drawn(image, encoded - started, stepped - encoded - previewed_s, previewed_s, self._now() - stepped)

    def _starting(self, job: JobOrder, start: Start | None) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
        """The pipeline to draw with, what its call takes beside the usual, what its loop is asked for previews."""
        if start is None:
            return self._pipe, {}, TENSORS
        masked = start.mask is not None
        kind = FluxInpaintPipeline if masked else FluxImg2ImgPipeline
        pipe = self._editors.get(kind)
        if pipe is None:
            pipe = self._editors[kind] = kind(**self._pipe.components)
            pipe.set_progress_bar_config(disable=True)
            allow(pipe)
        starting: dict[str, Any] = {"image": start.image, "strength": job.strength}
        if masked:
            starting["mask_image"] = start.mask
        return pipe, starting, MASKED_TENSORS if masked else TENSORS

    def _encode(self, job: JobOrder, tokens_max: int) -> dict[str, torch.Tensor]:
        """Both prompts' embeddings, under the names that the pipeline's call has for them."""
        embeds, pooled, _ = self._pipe.encode_prompt(job.prompt, None, max_sequence_length=tokens_max)
        prompts = {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
        if job.true_cfg_scale > 1:
            embeds, pooled, _ = self._pipe.encode_prompt(job.negative_prompt, None, max_sequence_length=tokens_max)
            prompts |= {"negative_prompt_embeds": embeds, "negative_pooled_prompt_embeds": pooled}
        return prompts

    def _now(self) -> float:
        """Seconds, once the device has done all it was given: its work is asynchronous."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return monotonic_s()


def _load(folder: Path, dtype: torch.dtype, report: Report) -> Any:
    """Part by part, so that a person sees how far it is. Nothing is fetched, only safetensors are read."""
    diffusers_logging.disable_progress_bar()
    safely = {"local_files_only": True, "use_safetensors": True}
    report("loading text encoders", 0.10)
    encoders = {
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype, **safely),
        "text_encoder_2": T5EncoderModel.from_pretrained(folder / "text_encoder_2", dtype=dtype, **safely),
    }
    report("loading transformer", 0.30)
    transformer = FluxTransformer2DModel.from_pretrained(folder / "transformer", dtype=dtype, **safely)
    report("loading vae", 0.75)
    vae = AutoencoderKL.from_pretrained(folder / "vae", dtype=dtype, **safely)
    return FluxPipeline.from_pretrained(folder, dtype=dtype, transformer=transformer, vae=vae, **encoders, **safely)


def _check_finite(tensor: torch.Tensor, what: str) -> None:
    if not bool(torch.isfinite(tensor).all()):
        raise GenServeError("engine_error", f"the model's {what} are not finite numbers; no picture came of them")
