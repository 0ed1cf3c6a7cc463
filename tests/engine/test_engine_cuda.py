"""The FLUX backend on a real GPU: pictures, memory figures, moving back, out of memory, offloading.

The rest of tests/engine needs no GPU; what is here cannot be shown without one.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from structlog.testing import capture_logs

from common.errors import GenServeError
from common.messages import DeviceInfo
from common.settings import GpuDaemonSettings
from gpu_daemon.engine.backend import Preview, Stopped
from gpu_daemon.engine.flux import FluxBackend
from gpu_daemon.model_folder import EMBEDDED
from tests.engine.orders import edit, ignore, order, paint, plain, told

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs an NVIDIA GPU; run `pytest tests/engine/test_engine_cuda.py` beside one",
)

MIB = 1024 * 1024
JOB = order(width=256, height=256)


def _loaded(**settings: Any) -> FluxBackend:
    backend = FluxBackend(GpuDaemonSettings(**settings), DeviceInfo(device="cuda:0", kind="cuda"))
    backend.load(lambda _stage, _fraction: None)
    return backend


def _pipe_of(backend: FluxBackend) -> Any:
    """The pipeline inside, to do to it what must not stay unnoticed."""
    assert backend._painter
    return backend._painter._pipeline._pipe


def _devices(backend: FluxBackend) -> set[str]:
    parts = [part for part in _pipe_of(backend).components.values() if isinstance(part, torch.nn.Module)]
    return {tensor.device.type for part in parts for tensor in part.state_dict().values()}


@pytest.fixture(scope="module")
def gpu() -> FluxBackend:
    return _loaded(offload="off")


@pytest.fixture(scope="module")
def reference() -> bytes:
    """What plain diffusers draws for JOB on this GPU."""
    pipe = FluxPipeline.from_pretrained(EMBEDDED, dtype=torch.bfloat16).to("cuda")
    pipe.set_progress_bar_config(disable=True)
    return plain(pipe, JOB).tobytes()


@pytest.fixture(autouse=True)
def all_memory_comes_back() -> Iterator[None]:
    """No test may leave tensors of a job on the GPU; only whole models, which fixtures hold, may come."""
    yield
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() < 300 * MIB


def test_pixels_are_those_of_plain_diffusers(gpu: FluxBackend, reference: bytes):
    assert _devices(gpu) == {"cuda"}
    assert paint(gpu, JOB).tobytes() == reference
    assert paint(gpu, order(seed=8)).tobytes() != paint(gpu, order()).tobytes()


def test_steps_are_timed_when_the_gpu_has_done_them(gpu: FluxBackend):
    told: list[float] = []
    timings = gpu.draw(order(steps=5), lambda _step, _steps, step_s, _preview: told.append(step_s)).timings
    assert len(told) == 5
    assert 0 < sum(told) <= timings.denoise_s
    assert timings.encode_s + timings.denoise_s + timings.decode_s + timings.save_s <= timings.total_s


def test_figures_are_the_drivers(gpu: FluxBackend):
    before = gpu.device_load()
    held = torch.empty(512 * MIB, dtype=torch.uint8, device="cuda")
    during = gpu.device_load()
    assert during.allocated_mb - before.allocated_mb == pytest.approx(512, abs=1)
    assert during.free_mb == pytest.approx(torch.cuda.mem_get_info()[0] / MIB, abs=1)
    del held
    after = gpu.device_load()
    assert after.allocated_mb == before.allocated_mb
    assert after.cached_mb >= before.cached_mb + 500
    assert after.free_mb == pytest.approx(during.free_mb, abs=2), "torch keeps what is unused"
    gpu.became_idle()
    idle = gpu.device_load()
    assert idle.cached_mb < 64
    assert idle.free_mb >= after.free_mb + 500


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder_2"])
def test_a_part_moved_away_is_moved_back(gpu: FluxBackend, reference: bytes, part: str):
    getattr(_pipe_of(gpu), part).to("cpu")
    with capture_logs() as logs:
        assert paint(gpu, JOB).tobytes() == reference
    assert [line for line in logs if line["event"] == "model.moved"] == [
        {"event": "model.moved", "log_level": "info", "device": "cuda:0", "parts": [part]}
    ]
    assert _devices(gpu) == {"cuda"}


def test_a_whole_model_moved_away_is_moved_back(gpu: FluxBackend, reference: bytes):
    _pipe_of(gpu).to("cpu")
    assert _devices(gpu) == {"cpu"}
    assert paint(gpu, JOB).tobytes() == reference
    with capture_logs() as logs:
        paint(gpu, JOB)
    assert [line["event"] for line in logs] == ["device.set"], "nothing to move the second time"


def _take_all_memory() -> list[torch.Tensor]:
    torch.cuda.empty_cache()
    taken = []
    for size in (1 << 30, 1 << 26, 1 << 21, 1 << 18, 1 << 14, 1 << 9):
        while True:
            try:
                taken.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError:
                break
    return taken


def test_out_of_memory_is_typed_and_the_next_job_is_right(gpu: FluxBackend, reference: bytes):
    baseline = gpu.device_load().allocated_mb
    taken = _take_all_memory()
    try:
        with pytest.raises(GenServeError, match="256x256 pixels needs more memory") as caught:
            gpu.draw(JOB, ignore)
    finally:
        del taken
    assert caught.value.code == "out_of_memory"
    assert gpu.device_load().allocated_mb == baseline, "the error that is still held holds no tensors"
    assert paint(gpu, JOB).tobytes() == reference


def test_out_of_memory_between_two_steps(gpu: FluxBackend, reference: bytes):
    taken: list[torch.Tensor] = []
    with pytest.raises(GenServeError) as caught:
        gpu.draw(JOB, lambda step, *_told: taken.extend(_take_all_memory()) if step == 2 else None)
    taken.clear()
    assert caught.value.code == "out_of_memory"
    assert paint(gpu, JOB).tobytes() == reference


@pytest.mark.parametrize("settings", [{"offload": "on"}, {"offload": "auto", "offload_below_gb": 10_000.0}])
def test_offloaded_pictures_are_the_same(reference: bytes, settings: dict[str, Any]):
    with capture_logs() as logs:
        backend = _loaded(**settings)
    plan = next(line for line in logs if line["event"] == "memory.plan")
    assert plan["offloaded"]
    assert plan["total_mb"] == torch.cuda.mem_get_info()[1] // MIB
    assert backend.offloaded
    assert _devices(backend) == {"cpu"}
    assert paint(backend, JOB).tobytes() == reference
    assert _devices(backend) == {"cpu"}, "every part goes home after its picture"

    def stop(step: int, _steps: int, _step_s: float, _preview: Preview | None) -> None:
        if step == 2:
            raise Stopped

    with pytest.raises(Stopped):
        backend.draw(JOB, stop)
    assert _devices(backend) == {"cpu"}, "also after one that was stopped"
    assert paint(backend, JOB).tobytes() == reference


@pytest.mark.parametrize("offload", ["on", "off"])
def test_previews_and_edits_change_nothing_and_go_home_as_well(reference: bytes, offload: str):
    backend = _loaded(offload=offload)
    home = {"cpu"} if offload == "on" else {"cuda"}
    shown: list[Preview] = []
    previewed = order(width=256, height=256, previews=3)
    drawn = paint(backend, previewed, lambda *step: shown.extend([step[3]] if step[3] else []))
    assert (len(shown), drawn.tobytes()) == (3, reference)
    assert _devices(backend) == home
    image, mask = told(drawn), told(Image.new("L", drawn.size, 255), "mask")
    edited = edit(backend, image, mask, width=256, height=256, seed=8, previews=1)
    assert edited.size == (256, 256)
    near = edit(backend, image, width=256, height=256, seed=8, strength=0.3)
    assert near.tobytes() != drawn.tobytes()
    assert _devices(backend) == home, "every part goes home after an edit"
    assert paint(backend, JOB).tobytes() == reference


def test_a_gpu_with_room_does_not_offload():
    backend = _loaded()
    assert not backend.offloaded
    assert _devices(backend) == {"cuda"}


@pytest.mark.parametrize(
    ("policy", "after_job", "after_idle"), [("idle", True, False), ("job", False, False), ("never", True, True)]
)
def test_unused_memory_is_kept_as_long_as_set(policy: str, after_job: bool, after_idle: bool):
    backend = _loaded(empty_cache=policy, offload="off")

    def is_kept(act: Callable[[], object]) -> bool:
        torch.cuda.empty_cache()
        torch.empty(512 * MIB, dtype=torch.uint8, device="cuda")  # freed at once; torch keeps the room
        act()
        return backend.device_load().cached_mb >= 500

    assert is_kept(lambda: backend.draw(order(), ignore)) == after_job
    assert is_kept(backend.became_idle) == after_idle


STICKY = """
import torch
from common.messages import DeviceInfo
from common.settings import GpuDaemonSettings
from gpu_daemon.engine.backend import EngineMustEnd
from gpu_daemon.engine.flux import FluxBackend
from tests.engine.orders import order

def beyond(*_step):
    torch.zeros(4, device="cuda")[torch.tensor([99], device="cuda")]
    torch.cuda.synchronize()

backend = FluxBackend(GpuDaemonSettings(), DeviceInfo(device="cuda:0", kind="cuda"))
backend.load(lambda _stage, _fraction: None)
for on_step in (beyond, lambda *_step: None):
    try:
        backend.draw(order(), on_step)
    except EngineMustEnd as error:
        print(error.code)
"""


def test_a_sticky_error_ends_the_engine():
    ended = subprocess.run([sys.executable, "-c", STICKY], capture_output=True, text=True, timeout=180, check=False)
    codes = [line for line in ended.stdout.splitlines() if line == "engine_died"]
    assert codes == ["engine_died", "engine_died"], ended.stderr[-2000:]
