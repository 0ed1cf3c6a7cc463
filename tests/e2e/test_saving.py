"""Copies in the output folder: when asked for, under names that only the server makes."""

from pathlib import Path

from tests.service import running

ASK = {"prompt": "x", "width": 64, "height": 64, "num_inference_steps": 1, "seed": 5}


def test_save_disk_path_is_a_yes_and_never_a_path(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere.png"
    with running(tmp_path, "--gpus", "cpu", "--engine", "noop") as service:
        for wanted in (str(target), "../../escape.png", True):
            status, body, _ = service.post("/generate", {**ASK, "save_disk_path": wanted})
            assert status == 200
        for unwanted in ("", "no", False, None):
            status, body, _ = service.post("/generate", {**ASK, "save_disk_path": unwanted})
            assert status == 200
        assert body["task_id"]
        saved = sorted((tmp_path / "output").iterdir())
    assert len(saved) == 3
    assert all(path.suffix == ".png" and "seed5" in path.name for path in saved)
    assert not target.exists()
    assert not list(tmp_path.parent.rglob("escape.png"))


def test_save_test_images_keeps_every_picture(tmp_path: Path) -> None:
    env = {"SAVE_TEST_IMAGES": "true", "GENSERVE_GPU_DAEMON_OUTPUT_DIR": str(tmp_path / "kept")}
    with running(tmp_path, "--gpus", "cpu", "--engine", "noop", env=env) as service:
        status, body, _ = service.post("/v1/images/generations", {"prompt": "x", "size": "64x64", "n": 2})
        assert status == 200
        ids = {item["genserve"]["job_id"][:8] for item in body["data"]}
        saved = list((tmp_path / "kept").iterdir())
    assert len(saved) == 2
    assert {part for path in saved for part in ids if part in path.name} == ids


def test_a_copy_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    env = {"GENSERVE_GPU_DAEMON_OUTPUT_DIR": str(tmp_path / "file" / "folder")}
    service_args = ("--gpus", "cpu", "--engine", "noop")
    with running(tmp_path, *service_args, env=env, clean_log=False) as service:
        status, body, _ = service.post("/generate", {**ASK, "save_disk_path": True})
        assert status == 200
        assert [warning["code"] for warning in body["warnings"]] == ["save_failed"]
