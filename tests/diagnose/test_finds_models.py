"""Spoiled model folders: each fault is found in the part that has it, with the command that mends it."""

import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece

from gpu_daemon.model_folder import EMBEDDED
from tests.diagnose.looking import found, look, model

WEIGHTS = "diffusion_pytorch_model.safetensors"
NOBODY = 65534
Spoil = Callable[[Path], object]


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def safetensors(path: Path, shape: list[int], dtype: str, size: int) -> None:
    """A file whose header declares one tensor; its numbers are a hole in the file."""
    header = json.dumps({"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)


def truncated(folder: Path) -> None:
    path = folder / "transformer" / WEIGHTS
    os.truncate(path, path.stat().st_size // 2)


def shard_missing(folder: Path) -> None:
    first = "diffusion_pytorch_model-00001-of-00002.safetensors"
    (folder / "transformer" / WEIGHTS).rename(folder / "transformer" / first)
    index = {"weight_map": {"proj_out.bias": first, "proj_out.weight": first.replace("00001-of", "00002-of")}}
    (folder / "transformer" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def single_file(folder: Path) -> None:
    """As it lies in ComfyUI: one checkpoint, nothing else."""
    for entry in list(folder.iterdir()):
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    (folder / "flux1-dev.safetensors").write_bytes(b"x")


def unsafe(folder: Path) -> None:
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / "diffusion_pytorch_model.bin")


FAULTS: list[tuple[str, Spoil, str, str, str]] = [
    ("model.folder", shutil.rmtree, "does not exist", "hf download black-forest-labs/FLUX.1-dev --local-dir"),
    ("model.folder", single_file, "holds the single-file checkpoint flux1-dev.safetensors", "-diffusers"),
    ("model.folder", lambda f: (f / "model_index.json").unlink(), "model_index.json is missing", "hf download"),
    (
        "model.folder",
        lambda f: change(f / "model_index.json", _class_name="StableDiffusionPipeline"),
        "describes a StableDiffusionPipeline",
        "rm ",
    ),
    ("model.vae", lambda f: (f / "vae" / "hook.py").write_text("1"), "vae/hook.py is code", "/vae/hook.py"),
    ("model.vae", lambda f: shutil.rmtree(f / "vae"), "vae/ is missing", "--include 'vae/*'"),
    ("model.vae", unsafe, "may run code", "--include 'vae/*'"),
    ("model.scheduler", lambda f: (f / "scheduler" / "scheduler_config.json").write_text("{"), "is not JSON", "rm "),
    ("model.transformer", shard_missing, "00002-of-00002.safetensors is missing", "--include transformer/diff"),
    ("model.transformer", truncated, "where its header declares 20463872", f"/transformer/{WEIGHTS} && hf download"),
    (
        "model.transformer",
        lambda f: (f / "transformer" / WEIGHTS).write_bytes(b"\1" * 100),
        "broken header",
        f"--include transformer/{WEIGHTS}",
    ),
    (
        "model.transformer",
        lambda f: (f / "transformer" / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid 1\n"),
        "git-LFS pointer",
        "lfs pull",
    ),
    (
        "model.transformer",
        lambda f: (f / "transformer" / WEIGHTS).write_text("<!DOCTYPE html><html>401 Unauthorized</html>"),
        "is a web page",
        "hf auth login && rm ",
    ),
    (
        "model.transformer",
        lambda f: change(f / "transformer" / "config.json", num_single_layers=38),
        "weights for 5 layers where num_single_layers = 38",
        "--include 'transformer/*'",
    ),
    (
        "model.text_encoder_2",
        lambda f: safetensors(f / "text_encoder_2" / "model.safetensors", [64], "U8", 64),
        "quantised weights (U8)",
        "--include 'text_encoder_2/*'",
    ),
    (
        "model.text_encoder_2",
        lambda f: safetensors(f / "text_encoder_2" / "model.safetensors", [64], "F16", 64),
        "broken safetensors header",
        "rm ",
    ),
    ("model.tokenizer", lambda f: [(f / "tokenizer" / n).unlink() for n in ("vocab.json", "tokenizer.json")],
     "has no vocabulary", "--include 'tokenizer/*'"),
    ("model.card", lambda f: change(f / "genserve_model.json", colour=1), "has no field 'colour'", "nano}"),
    (
        "tokenizers.t5",
        lambda f: os.truncate(f / "tokenizer_2" / "spiece.model", 1000),
        "tokenizer_2/spiece.model cannot be used",
        "rm -r ",
    ),
    (
        "tokenizers.t5",
        lambda f: (f / "tokenizer_2" / "tokenizer.json").write_text('{"version": 7}'),
        "tokenizer_2/tokenizer.json cannot be used",
        "--include 'tokenizer_2/*'",
    ),
    (
        "tokenizers.clip",
        lambda f: change(f / "text_encoder" / "config.json", vocab_size=1000),
        "gives numbers up to 1666, text_encoder knows 1000",
        "--include 'tokenizer/*'",
    ),
    (
        "memory.plan",
        lambda f: safetensors(f / "vae" / WEIGHTS, [2**38], "F16", 2**39),
        "1024.0 GiB of this host's memory",
        "ps -eo",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "spoil", "said", "mend"), FAULTS, ids=lambda value: value[:40] if isinstance(value, str) else ""
)
def test_a_spoiled_model_is_named_with_its_mend(name: str, spoil: Spoil, said: str, mend: str, tmp_path: Path):
    folder = model(tmp_path)
    spoil(folder)
    findings = look(name, env={"FLUX_MODEL_PATH": str(folder)})
    found(findings[name], "fail", said, mend)


def test_one_spoiled_part_is_the_only_fail(tmp_path: Path):
    folder = model(tmp_path)
    truncated(folder)
    findings = look("model,tokenizers,memory", flags={"gpu_daemon": {"model_path": str(folder)}})
    assert [name for name, finding in findings.items() if finding.status == "fail"] == ["model.transformer"]
    assert findings["memory.plan"].skipped


def test_a_checkpoint_file_in_place_of_a_folder(tmp_path: Path):
    (tmp_path / "flux1-dev.safetensors").write_bytes(b"x")
    finding = look("model.folder", env={"FLUX_MODEL_PATH": str(tmp_path / "flux1-dev.safetensors")})["model.folder"]
    found(finding, "fail", "single-file checkpoint (.safetensors)", f"export FLUX_MODEL_PATH={tmp_path}/flux1-dev-diff")


def test_a_file_that_is_no_model_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    finding = look("model.folder", env={"FLUX_MODEL_PATH": "/etc/passwd"})["model.folder"]
    found(finding, "fail", "/etc/passwd", f"--local-dir {tmp_path}/models/FLUX.1-dev ")


def test_eight_bit_weights_are_worth_a_look(tmp_path: Path):
    folder = model(tmp_path)
    safetensors(folder / "vae" / WEIGHTS, [64], "F8_E4M3", 64)
    finding = look("model.vae", env={"FLUX_MODEL_PATH": str(folder)})["model.vae"]
    found(finding, "warn", "F8_E4M3", "--include 'vae/*'")


def test_a_tokenizer_that_knows_no_plain_words(tmp_path: Path):
    folder = model(tmp_path)
    (folder / "tokenizer_2" / "tokenizer.json").unlink()
    with (folder / "tokenizer_2" / "spiece.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["一二三四五六七", "一三五七"]), model_writer=file, vocab_size=11, minloglevel=2
        )
    finding = look("tokenizers.t5", env={"FLUX_MODEL_PATH": str(folder)})["tokenizers.t5"]
    found(finding, "fail", "does not know plain words (a, red, circle", "rm -r ")


def test_files_that_the_serving_user_may_not_read(tmp_path: Path):
    """As that user: root, who often runs tests, reads everything."""
    folder = model(tmp_path)
    (folder / "vae" / WEIGHTS).chmod(0)
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == os.geteuid() and above.stat().st_mode & 0o111 != 0o111:
            above.chmod(above.stat().st_mode | 0o111)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            finding = look("model.access", env={"FLUX_MODEL_PATH": str(folder)})["model.access"]
            os.write(writing, json.dumps([finding.status, finding.detail, finding.fix]).encode())
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        status, detail, fix = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert status == "fail"
    assert f"may not read FLUX.1-copy/vae/{WEIGHTS}" in detail
    assert fix == f"sudo chmod -R a+rX {folder}"


def test_a_link_that_leads_nowhere_is_no_question_of_rights(tmp_path: Path):
    folder = model(tmp_path)
    (folder / "README.txt").symlink_to(tmp_path / "gone")
    assert look("model.access", env={"FLUX_MODEL_PATH": str(folder)})["model.access"].status == "ok"


COPIES: list[tuple[str, Spoil, str]] = [
    ("model.transformer", truncated, f"cp {EMBEDDED}/transformer/{WEIGHTS} {{}}/transformer/{WEIGHTS}"),
    ("model.transformer", shard_missing, f"cp -r {EMBEDDED}/transformer {{}}/"),
    ("model.vae", lambda f: shutil.rmtree(f / "vae"), f"cp -r {EMBEDDED}/vae {{}}/"),
    ("model.folder", lambda f: (f / "model_index.json").unlink(), f"cp -r {EMBEDDED} {{}}-diffusers && export FLUX"),
    ("tokenizers.t5", lambda f: os.truncate(f / "tokenizer_2" / "spiece.model", 9), f"cp -r {EMBEDDED}/tokenizer_2 "),
]


@pytest.mark.parametrize(("name", "spoil", "mend"), COPIES)
def test_a_copy_of_the_model_inside_is_mended_from_there(name: str, spoil: Spoil, mend: str, tmp_path: Path):
    folder = tmp_path / "shapes"
    shutil.copytree(EMBEDDED, folder)
    spoil(folder)
    finding = look(name, env={"FLUX_MODEL_PATH": str(folder)})[name]
    found(finding, "fail", "", mend.format(folder))
    assert "hf download" not in finding.fix


def test_weights_that_look_whole_and_are_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Only drawing tells; what the engine logs of it stays out of what is told."""
    folder = tmp_path / "shapes"
    shutil.copytree(EMBEDDED, folder)
    with (folder / "vae" / WEIGHTS).open("r+b") as file:
        (header,) = struct.unpack("<Q", file.read(8))
        size = file.seek(0, os.SEEK_END) - 8 - header
        file.seek(8 + header)
        file.write(b"\xff" * size)  # none is a number
    finding = look("engine.draw", env={"FLUX_MODEL_PATH": str(folder), "FLUX_GPUS": "cpu"}, quick=False)["engine.draw"]
    found(finding, "fail", "are not finite numbers", f"cp -r {EMBEDDED}/. {folder}")
    assert "the daemon's log" not in finding.detail
    assert capfd.readouterr() == ("", "")


def test_a_default_model_that_nobody_serves():
    env = {"GENSERVE_ROUTER_DEFAULT_MODEL": "flux1-dev"}
    finding = look("model.card", env=env)["model.card"]
    found(
        finding, "warn", "this machine serves 'genserve-shapes'", "export GENSERVE_ROUTER_DEFAULT_MODEL=genserve-shapes"
    )


def test_the_model_inside_is_whole_and_told_in_numbers():
    findings = look("model,tokenizers,memory")
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert "1 file, 20 MiB, 10.2 M numbers as F16" in findings["model.transformer"].detail
    assert "59 MiB of weights on cpu: transformer 39 MiB" in findings["memory.plan"].detail
    assert "Chinese" in findings["tokenizers.t5"].detail
