"""One service with the embedded model, through every door, as a stranger would try it."""

import base64
import hashlib
import io
import json
import subprocess
from pathlib import Path

import psutil
import pytest
from PIL import Image

from common.settings import GpuDaemonSettings
from gpu_daemon.model_folder import open_model
from tests.rawclient import RawClient
from tests.service import GENSERVE, Service

PROMPT = "a lighthouse at dawn"
SMALL = {"size": "64x64", "num_inference_steps": 2}


def _picture(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def _facts(image: Image.Image) -> dict[str, object]:
    facts = json.loads(str(image.info["genserve"]))
    assert isinstance(facts, dict)
    return facts


def test_openai_dialect(service: Service) -> None:
    status, body, _ = service.post(
        "/v1/images/generations", {"prompt": PROMPT, "model": "gpt-image-1", "n": 2, "seed": 7, **SMALL}
    )
    assert status == 200
    assert body["model"] == "genserve-shapes"
    assert len(body["data"]) == 2
    for at, item in enumerate(body["data"]):
        image = _picture(base64.b64decode(item["b64_json"]))
        assert image.size == (64, 64)
        facts = _facts(image)
        assert (facts["model"], facts["seed"], facts["steps"]) == ("genserve-shapes", 7 + at, 2)
        assert item["genserve"]["seed"] == 7 + at
    assert body["data"][0]["b64_json"] != body["data"][1]["b64_json"]


def test_older_dialect_and_its_task(service: Service) -> None:
    ask = {"prompt": PROMPT, "num_inference_steps": 2, "seed": 7, "cfg": 3.5, "width": 64, "height": 64}
    status, body, _ = service.post("/generate", ask)
    assert status == 200
    assert body["success"] is True
    assert (body["model"], body["device"]) == ("genserve-shapes", "cpu")
    assert body["output"] == body["image_base64"]
    assert body["elapsed_time"].endswith("s")
    assert _facts(_picture(base64.b64decode(body["output"])))["seed"] == 7
    for _ in range(2):  # reading a task does not use it up
        status, task = service.get(f"/task/{body['task_id']}")
        assert status == 200
        assert task["image_base64"] == body["output"]


def test_every_door_draws_the_same_picture_for_a_seed(service: Service, tmp_path: Path) -> None:
    _, openai, _ = service.post("/v1/images/generations", {"prompt": PROMPT, "seed": 11, **SMALL})
    _, older, _ = service.post(
        "/generate", {"prompt": PROMPT, "seed": 11, "num_inference_steps": 2, "width": 64, "height": 64}
    )
    with RawClient(service.client_endpoint) as client:
        name, header, raw = client.draw(prompt=PROMPT, seed=11, width=64, height=64, steps=2)
    assert name == b"RESULT"
    assert header["picture"]["sha256"] == hashlib.sha256(raw).hexdigest()
    out = tmp_path / "x.png"
    done = subprocess.run(
        [GENSERVE, "generate", PROMPT, "-o", str(out), "--size", "64x64", "--steps", "2", "--seed", "11",
         "--router", service.client_endpoint],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pixels = {
        _picture(data).tobytes()
        for data in (
            base64.b64decode(openai["data"][0]["b64_json"]), base64.b64decode(older["output"]), raw, out.read_bytes()
        )
    }  # fmt: skip
    assert len(pixels) == 1


def test_the_picture_is_the_one_that_plain_fluxpipeline_draws(service: Service) -> None:
    torch = pytest.importorskip("torch")
    from diffusers import FluxPipeline  # noqa: PLC0415  # torch is slow to import and only this test needs it

    settings = GpuDaemonSettings()
    _, body, _ = service.post(
        "/v1/images/generations",
        {"prompt": PROMPT, "seed": 5, "size": "96x128", "num_inference_steps": 3, "guidance_scale": 2.5},
    )
    served = _picture(base64.b64decode(body["data"][0]["b64_json"]))
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.cpu_threads)
    try:
        model = open_model(settings)
        pipe = FluxPipeline.from_pretrained(model.path, dtype=torch.float32, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        plain = pipe(
            prompt=PROMPT, width=96, height=128, num_inference_steps=3, guidance_scale=2.5,
            max_sequence_length=model.card.prompt_tokens_max, generator=torch.Generator("cpu").manual_seed(5),
        ).images[0]  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    assert served.tobytes() == plain.tobytes()


def test_a_larger_size_is_enlarged_and_said_so(service: Service) -> None:
    ask = {"prompt": PROMPT, "size": "1024x1024", "seed": 1, "num_inference_steps": 1}
    status, body, _ = service.post("/v1/images/generations", ask)
    assert status == 200
    image = _picture(base64.b64decode(body["data"][0]["b64_json"]))
    assert image.size == (1024, 1024)
    assert (_facts(image)["drawn_width"], _facts(image)["drawn_height"]) == (128, 128)
    assert body["warnings"][0]["code"] == "enlarged"


def test_a_prompt_that_was_cut_is_warned_about(service: Service) -> None:
    status, body, _ = service.post("/v1/images/generations", {"prompt": "a very long tale " * 200, **SMALL})
    assert status == 200
    assert "prompt_cut" in [warning["code"] for warning in body["warnings"]]


def test_negative_prompt_changes_the_picture(service: Service) -> None:
    ask = {"prompt": PROMPT, "seed": 3, **SMALL}
    _, plain, _ = service.post("/v1/images/generations", ask)
    _, with_negative, _ = service.post("/v1/images/generations", {**ask, "negative_prompt": "fog"})
    assert plain["data"][0]["b64_json"] != with_negative["data"][0]["b64_json"]


def test_a_seed_is_drawn_when_none_is_given(service: Service) -> None:
    _, first, _ = service.post("/v1/images/generations", {"prompt": PROMPT, **SMALL})
    _, second, _ = service.post("/v1/images/generations", {"prompt": PROMPT, **SMALL})
    seeds = {answer["data"][0]["genserve"]["seed"] for answer in (first, second)}
    assert len(seeds) == 2
    assert 42 not in seeds


def test_models_and_their_names(service: Service) -> None:
    _, models = service.get("/v1/models")
    assert [model["id"] for model in models["data"]] == ["genserve-shapes"]
    _, body, _ = service.post("/generate", {"prompt": PROMPT, "model": "flux1-dev", "num_inference_steps": 1})
    assert body["model"] == "genserve-shapes"
    status, body, _ = service.post("/v1/images/generations", {"prompt": PROMPT, "model": "sdxl"})
    assert status == 404
    assert body["error"]["code"] == "unknown_model"
    assert "genserve-shapes" in body["error"]["message"]


def test_status_counts_what_was_asked(service: Service) -> None:
    _, before = service.get("/status")
    for seed in range(3):
        status, *_ = service.post("/v1/images/generations", {"prompt": PROMPT, "seed": seed, **SMALL})
        assert status == 200
    _, after = service.get("/status")
    was, now = (s["concurrent_manager"]["stats"] for s in (before, after))
    assert now["total_tasks"] - was["total_tasks"] == 3
    assert now["completed_tasks"] - was["completed_tasks"] == 3
    assert now["failed_tasks"] == was["failed_tasks"]
    [instance] = after["concurrent_manager"]["model_instances"]["genserve-shapes"]
    assert instance["total_generations"] == now["completed_tasks"]
    assert instance["is_loaded"] is True
    assert instance["max_queue_size"] == 5
    assert after["concurrent_manager"]["max_global_queue_size"] == 50


def test_gpu_load_is_what_the_engine_really_uses(service: Service) -> None:
    [engine] = service.processes("genserve engine")
    _, body = service.get("/gpu/load")
    load = body["gpu_load_info"]["cpu"]
    resident_mb = engine.memory_info().rss / 2**20
    assert load["allocated_mb"] == pytest.approx(resident_mb, rel=0.25)
    assert load["total_mb"] == pytest.approx(psutil.virtual_memory().total / 2**20, abs=2)
    assert 0 < load["free_mb"] < load["total_mb"]
    used = 100 * (load["total_mb"] - load["free_mb"]) / load["total_mb"]
    assert load["utilization_percent"] == pytest.approx(used, abs=0.2)
    assert body["model_gpu_config"] == {"genserve-shapes": ["cpu"]}


def test_each_process_is_recognisable(service: Service) -> None:
    for title in ("genserve router", "genserve gpu-daemon", "genserve engine", "genserve gateway"):
        assert service.processes(title), title


def test_status_command(service: Service) -> None:
    done = subprocess.run(
        [GENSERVE, "status", "--json", "--router", service.client_endpoint],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["workers"][0]["state"] == "ready"
    table = subprocess.run(
        [GENSERVE, "status", "--router", service.client_endpoint],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert "genserve-shapes" in table.stdout


def test_logs_tell_a_jobs_life_without_its_prompt(service: Service) -> None:
    secret = "a prompt that nobody else may read"
    _, body, _ = service.post("/v1/images/generations", {"prompt": secret, **SMALL})
    job_id = body["data"][0]["genserve"]["job_id"]
    lines = [json.loads(line) for line in service.log_text().splitlines() if job_id in line and line.startswith("{")]
    names = {line["event"] for line in lines}
    assert {"job.accepted", "instance.chosen", "job.started", "job.done"} <= names
    assert all(line["job"] == job_id[:8] for line in lines if "job_id" in line)
    [done] = [line for line in lines if line["event"] == "job.done" and line["process"].startswith("gpu-daemon")]
    assert done["device"] == "cpu"
    assert done["elapsed_s"] > 0
    assert not [line for line in service.log_text().splitlines() if secret in line and '"level": "debug"' not in line]
