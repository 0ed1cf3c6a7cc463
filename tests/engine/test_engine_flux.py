"""The FLUX backend on a CPU: its pictures are plain diffusers' own, whatever happened before."""

import hashlib
import json
import subprocess
import sys
import weakref
from importlib.metadata import version
from typing import Any

import pytest
import torch
from PIL import Image

from common.errors import GenServeError
from common.messages import SEED_MAX, DeviceInfo, JobOrder
from common.settings import GpuDaemonSettings
from gpu_daemon.engine.backend import EngineMustEnd, Preview, Stopped
from gpu_daemon.engine.flux import FluxBackend
from tests.engine.orders import ignore, order, paint, picture, plain

SAME = [
    order(),
    order(seed=SEED_MAX, steps=1),
    order(seed=0, width=64, height=192, guidance_scale=0.0),
    order(width=256, height=256, steps=2, guidance_scale=9.5),
    order(prompt="雪の山 ночь 🚀", width=208, height=80),
    order(negative_prompt="blur, low quality", true_cfg_scale=4.0),
    order(prompt="word " * 700, steps=2),
    order(prompt="a cat", negative_prompt="dog " * 600, true_cfg_scale=2.5, steps=2),
]


@pytest.mark.parametrize("job", SAME)
def test_pixels_are_those_of_plain_diffusers(backend: FluxBackend, pipe: Any, job: JobOrder):
    drawn = paint(backend, job)
    assert drawn.size == (job.width, job.height)
    assert drawn.tobytes() == plain(pipe, job).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"prompt": "a green star"},
        {"steps": 5},
        {"guidance_scale": 7.0},
        {"negative_prompt": "red", "true_cfg_scale": 3.0},
    ],
)
def test_every_choice_changes_the_picture(backend: FluxBackend, change: dict[str, Any]):
    assert paint(backend, order(**change)).tobytes() != paint(backend, order()).tobytes()


def test_same_seed_same_file(backend: FluxBackend):
    first, second = (backend.draw(order(), ignore) for _ in range(2))
    assert first.data == second.data
    assert first.picture == second.picture


ELSEWHERE = """
import sys
def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise SystemExit(f"the network was used: {event} {arguments}")
sys.addaudithook(no_network)
from common.messages import DeviceInfo
from common.settings import GpuDaemonSettings
from gpu_daemon.engine.flux import FluxBackend
from tests.engine.orders import ignore, order
backend = FluxBackend(GpuDaemonSettings(), DeviceInfo(device="cpu", kind="cpu"))
assert "torch" not in sys.modules
stages = []
backend.load(lambda stage, fraction: stages.append((stage, fraction)))
print(backend.draw(order(), ignore).picture.sha256, [stage for stage, _ in stages])
assert [fraction for _, fraction in stages] == sorted(fraction for _, fraction in stages)
"""


def test_same_picture_in_another_process_and_nothing_fetched(backend: FluxBackend):
    ended = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    sha256, _, stages = ended.stdout.strip().splitlines()[-1].partition(" ")
    assert sha256 == backend.draw(order(), ignore).picture.sha256
    for stage in ("importing torch", "text encoders", "transformer", "vae", "moving to device", "warming up"):
        assert stage in stages


def test_larger_sizes_are_enlarged_from_the_native_picture(backend: FluxBackend, pipe: Any):
    job = order(width=300, height=200, drawn_width=144, drawn_height=96)
    painting = backend.draw(job, ignore)
    wanted = plain(pipe, job).resize((300, 200), Image.Resampling.LANCZOS)
    assert picture(painting).tobytes() == wanted.tobytes()
    facts = painting.picture
    assert (facts.width, facts.height, facts.drawn_width, facts.drawn_height) == (300, 200, 144, 96)


def test_file_says_how_it_was_made(backend: FluxBackend):
    job = order(prompt="a secret wish", width=256, height=128, drawn_width=176, drawn_height=96, seed=11)
    painting = backend.draw(job, ignore)
    text = picture(painting).text
    assert text["Software"] == f"GenServe {version('genserve')}"
    assert json.loads(text["genserve"]) == {
        "model": "genserve-shapes",
        "seed": 11,
        "steps": 4,
        "guidance_scale": 3.5,
        "true_cfg_scale": 1.0,
        "width": 256,
        "height": 128,
        "drawn_width": 176,
        "drawn_height": 96,
        "enlarged": True,
    }
    assert b"secret" not in painting.data
    assert painting.picture.bytes == len(painting.data)
    assert painting.picture.sha256 == hashlib.sha256(painting.data).hexdigest()


def test_each_step_is_told_once_and_timed(backend: FluxBackend):
    told: list[tuple[int, int, float, Preview | None]] = []
    timings = backend.draw(order(steps=6), lambda *step: told.append(step)).timings
    assert [(step, steps) for step, steps, *_ in told] == [(step, 6) for step in range(1, 7)]
    assert all(step_s > 0 for _, _, step_s, _ in told)
    assert sum(step_s for _, _, step_s, _ in told) <= timings.denoise_s
    stages = (timings.encode_s, timings.denoise_s, timings.decode_s, timings.save_s)
    assert all(seconds > 0 for seconds in stages)
    assert sum(stages) <= timings.total_s


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_stopped_between_two_steps_and_the_next_is_right(backend: FluxBackend, pipe: Any, stop_at: int):
    told: list[int] = []

    def on_step(step: int, _steps: int, _step_s: float, _preview: Preview | None) -> None:
        told.append(step)
        if step == stop_at:
            raise Stopped

    with pytest.raises(Stopped):
        backend.draw(order(seed=1), on_step)
    assert told == list(range(1, stop_at + 1))
    assert paint(backend, order()).tobytes() == plain(pipe, order()).tobytes()


def _cuda_error() -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def _value_error() -> None:
    raise ValueError("shapes and hidden things")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (lambda: torch.empty(1 << 50), "out_of_memory"),  # torch's own error
        (_value_error, "engine_error"),
        (_cuda_error, "engine_died"),
    ],
)
def test_failures_are_typed_and_the_next_is_right(backend: FluxBackend, pipe: Any, fault: Any, code: str):
    with pytest.raises(GenServeError) as caught:
        backend.draw(order(), lambda *_step: fault())
    assert caught.value.code == code
    assert isinstance(caught.value, EngineMustEnd) == (code == "engine_died")
    assert caught.value.__cause__ is not None, "its traceback is for the log"
    assert "hidden" not in caught.value.message
    assert paint(backend, order()).tobytes() == plain(pipe, order()).tobytes()


def test_a_failure_holds_no_tensors(backend: FluxBackend):
    held: list[weakref.ref[torch.Tensor]] = []

    def on_step(_step: int, _steps: int, _step_s: float, _preview: Preview | None) -> None:
        large = torch.zeros(1000)
        held.append(weakref.ref(large))
        raise ValueError

    with pytest.raises(GenServeError) as caught:
        backend.draw(order(), on_step)
    assert held[0]() is None
    assert caught.value.__cause__.__traceback__ is not None


def test_a_size_that_is_not_native_is_refused(backend: FluxBackend):
    with pytest.raises(GenServeError, match="cannot draw 100x128") as caught:
        backend.draw(order(width=100), ignore)
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(("cfg", "cut"), [(1.0, ["prompt"]), (2.0, ["prompt", "negative prompt"])])
def test_cut_prompts_are_noted(backend: FluxBackend, pipe: Any, cfg: float, cut: list[str]):
    words = "circle " * 700
    tokens = len(pipe.tokenizer_2(words).input_ids) - 1
    job = order(prompt=words, negative_prompt=words, true_cfg_scale=cfg, steps=1)
    notes = backend.draw(job, ignore).notes
    assert [note.code for note in notes] == ["prompt_cut"] * len(cut)
    for name, note in zip(cut, notes, strict=True):
        assert note.message.startswith(f"the {name} has {tokens} tokens; the model used the first 63 ")


def test_the_longest_prompt_that_fits_is_not_noted(backend: FluxBackend, pipe: Any):
    room = backend.card.prompt_tokens_max - 1
    fits = "a " * room
    assert len(pipe.tokenizer_2(fits).input_ids) == room + 1, "one token a word and the end mark"
    assert backend.draw(order(prompt=fits, steps=1), ignore).notes == ()
    assert len(backend.draw(order(prompt=fits + "a", steps=1), ignore).notes) == 1


def test_a_cpu_daemon_uses_the_threads_it_is_told(backend: FluxBackend):
    assert torch.get_num_threads() == GpuDaemonSettings().cpu_threads


def test_a_missing_gpu_is_said(monkeypatch: pytest.MonkeyPatch):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU; the test needs one without")
    backend = FluxBackend(GpuDaemonSettings(), DeviceInfo(device="cuda:0", kind="cuda"))
    with pytest.raises(GenServeError, match="cannot use cuda:0: check the driver") as caught:
        backend.load(lambda _stage, _fraction: None)
    assert caught.value.code == "device_unavailable"
