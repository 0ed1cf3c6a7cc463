"""The no-op engine keeps the contract: real pictures of the ordered size, colours by seed, steps that stop."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from common.errors import SettingsError
from common.settings import GpuDaemonSettings
from gpu_daemon.devices import cpu
from gpu_daemon.engine.backend import Painting, Preview, Stopped
from gpu_daemon.engine.noop import NoopBackend, colour_of, noop_card
from gpu_daemon.engine.saving import save_picture
from tests.gpu_daemon.fake_router import job_order, token


def draw(**changes: object) -> Painting:
    backend = NoopBackend(GpuDaemonSettings(engine="noop"), cpu())
    return backend.draw(job_order(**changes), lambda *_step: None)


@pytest.mark.parametrize(("width", "height"), [(16, 16), (17, 33), (64, 48), (1024, 1024), (2048, 1999)])
def test_the_picture_is_a_real_one_of_the_ordered_size(width: int, height: int) -> None:
    painting = draw(width=width, height=height, seed=5)
    with Image.open(io.BytesIO(painting.data)) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.size == (width, height)
        assert picture.convert("RGB").getcolors() == [(width * height, colour_of(5))]
    assert painting.picture.bytes == len(painting.data)
    assert painting.picture.sha256 == hashlib.sha256(painting.data).hexdigest()


def test_the_seed_decides() -> None:
    assert draw(seed=1).data == draw(seed=1).data
    assert len({colour_of(seed) for seed in range(200)}) == 200


def test_every_step_is_told_and_may_stop_the_job() -> None:
    backend, told = NoopBackend(GpuDaemonSettings(engine="noop"), cpu()), []

    def on_step(step: int, steps: int, _step_s: float, _preview: Preview | None) -> None:
        told.append((step, steps))
        if step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        backend.draw(job_order(steps=9), on_step)
    assert told == [(1, 9), (2, 9), (3, 9)]


def test_previews_are_of_colours_of_their_own() -> None:
    shown: list[Preview] = []
    backend = NoopBackend(GpuDaemonSettings(engine="noop"), cpu())

    def told(_step: int, _steps: int, _step_s: float, preview: Preview | None) -> None:
        shown.extend([preview] if preview else [])

    data = backend.draw(job_order(steps=9, previews=3, seed=5), told).data
    assert data == draw(steps=9, seed=5).data
    assert [preview.index for preview in shown] == [0, 1, 2]
    colours = [Image.open(io.BytesIO(preview.data)).convert("RGB").getpixel((0, 0)) for preview in shown]
    assert len({*colours, colour_of(5)}) == 4


def test_what_it_starts_from_changes_its_colour() -> None:
    backend, job = NoopBackend(GpuDaemonSettings(engine="noop"), cpu()), job_order(seed=5)
    drawn = [backend.draw(job, lambda *_step: None, files).data for files in ((), (b"a",), (b"b",), (b"a", b"b"))]
    assert len(set(drawn)) == 4
    assert backend.draw(job, lambda *_step: None, (b"a",)).data == drawn[1]


def test_its_card_bears_the_name_of_the_settings() -> None:
    assert noop_card(GpuDaemonSettings()).name == "noop"
    assert noop_card(GpuDaemonSettings(model_name="other")).name == "other"
    with pytest.raises(SettingsError, match="model_name"):
        noop_card(GpuDaemonSettings(model_name="no spaces"))


@pytest.mark.parametrize("module", ["gpu_daemon.control", "gpu_daemon.engine.process", "gpu_daemon.engine.noop"])
def test_neither_torch_nor_pillow_is_imported(module: str) -> None:
    code = f"import sys, {module}\nprint([m for m in ('torch', 'PIL', 'diffusers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_a_copy_is_saved_whole_under_a_name_of_the_servers(tmp_path: Path) -> None:
    painting = draw(seed=42)
    folder = tmp_path / "deep" / "down"
    path = save_picture(folder, painting, token(0xABC), job_order(seed=42), 1_795_456_862.0)
    assert path == folder / "20261123-180102-00000000-seed42.png"
    assert path.read_bytes() == painting.data
    assert list(folder.iterdir()) == [path]
