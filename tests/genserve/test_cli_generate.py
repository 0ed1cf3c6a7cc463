"""The pieces of `genserve generate` that need no router."""

from pathlib import Path

import pytest
import typer

from common.errors import GenServeError
from common.messages import JobProgress
from genserve.files import write_atomically
from genserve.generate import check_output, describe, format_of, job_spec, output_path, parse_size


def test_fields_left_out_are_the_models_own() -> None:
    spec = job_spec({"prompt": "x", "steps": None, "seed": 7})
    assert (spec.prompt, spec.steps, spec.seed, spec.guidance_scale) == ("x", 0, 7, None)


@pytest.mark.parametrize(
    ("field", "value"), [("prompt", ""), ("steps", 1001), ("seed", -1), ("guidance_scale", 101.0), ("priority", 11)]
)
def test_the_field_at_fault_is_named(field: str, value: object) -> None:
    with pytest.raises(GenServeError, match=field) as caught:
        job_spec({"prompt": "x", field: value})
    assert (caught.value.code, caught.value.param) == ("invalid_request", field)


def test_sizes() -> None:
    assert parse_size("auto") == (0, 0)
    assert parse_size("512x256") == parse_size("512X256") == (512, 256)
    for text in ("512", "x", "-1x5", "512x", "1e3x5", ""):
        with pytest.raises(typer.BadParameter):
            parse_size(text)


def test_a_folder_takes_the_picture_under_a_name_of_the_job(tmp_path: Path) -> None:
    assert output_path(None, "abcdef1234") == Path("genserve-abcdef12.png")
    assert output_path(tmp_path, "abcdef1234") == tmp_path / "genserve-abcdef12.png"
    assert output_path(tmp_path / "x.png", "abcdef1234") == tmp_path / "x.png"


def test_what_could_not_be_written_is_refused_before_drawing(tmp_path: Path) -> None:
    check_output(None)
    check_output(tmp_path)
    check_output(tmp_path / "new.PNG")
    check_output(tmp_path / "new.JPEG", "jpeg")
    for path, format_, words in (
        (tmp_path / "x.jpg", "png", "x.png"),
        (tmp_path / "x.png", "jpeg", "x.jpg"),
        (tmp_path / "x.gif", "png", "x.png"),
        (tmp_path / "none" / "x.png", "png", "create it"),
    ):
        with pytest.raises(typer.BadParameter, match=words):
            check_output(path, format_)


def test_the_files_name_asks_for_the_format(tmp_path: Path) -> None:
    asked = {"x.png": "png", "x.JPG": "jpeg", "x.jpeg": "jpeg", "x.webp": "webp", "x.gif": "png", "x": "png"}
    assert {name: format_of(tmp_path / name) for name in asked} == asked
    assert format_of(None) == format_of(tmp_path) == "png"
    assert output_path(tmp_path, "abcdef1234", "jpeg") == tmp_path / "genserve-abcdef12.jpg"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"newer")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("state", "position", "words"),
    [("queued", 3, "waiting, 2 before it"), ("queued", 1, "waiting, next in line"), ("running", 0, "drawing")],
)
def test_the_progress_in_words(state: str, position: int, words: str) -> None:
    assert describe(JobProgress(rid="1", job_id="0" * 32, state=state, step=0, steps=4, position=position)) == words
