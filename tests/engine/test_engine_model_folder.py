"""Every fault of a model folder is found before torch is loaded, and said in words that help."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from common.errors import GenServeError, SettingsError
from common.settings import GpuDaemonSettings
from gpu_daemon.model_folder import EMBEDDED, open_model

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole FLUX folder without a card of its own, as one gets it from elsewhere."""
    folder = tmp_path / "FLUX.1-dev"
    shutil.copytree(EMBEDDED, folder)
    (folder / "genserve_model.json").unlink()
    return folder


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _shard(folder: Path) -> Path:
    """Split the transformer's weights into two files and an index; the index's path."""
    whole = folder / "transformer" / WEIGHTS
    tensors = load_file(whole)
    names = sorted(tensors)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, whole.parent / shard)
        places |= dict.fromkeys(part, shard)
    whole.unlink()
    index = whole.with_name(f"{WEIGHTS}.index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def _no_shard(folder: Path) -> None:
    index = _shard(folder)
    index.with_name("diffusion_pytorch_model-00002-of-00002.safetensors").unlink()


def _shard_of_another_model(folder: Path) -> None:
    index = _shard(folder)
    places = json.loads(index.read_text())["weight_map"]
    _edit(index, weight_map=places | {"added.weight": "diffusion_pytorch_model-00001-of-00002.safetensors"})


def _shard_outside(folder: Path) -> None:
    index = _shard(folder)
    _edit(index, weight_map={"a": f"../vae/{WEIGHTS}"})


def _only_bin(folder: Path) -> None:
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / "pytorch_model.bin")


def _variant(folder: Path) -> None:
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / "diffusion_pytorch_model.fp16.safetensors")


def _cut(folder: Path) -> None:
    path = folder / "vae" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])


def _longer(folder: Path) -> None:
    with (folder / "vae" / WEIGHTS).open("ab") as file:
        file.write(b"x")


def _lies_about_a_shape(folder: Path) -> None:
    path = folder / "vae" / WEIGHTS
    path.write_bytes(path.read_bytes().replace(b'"shape":[', b'"shape":[9,', 1).replace(b'"}}', b'"}}', 1))


def _nested_header(folder: Path) -> None:
    header = b"[" * 100_000
    (folder / "vae" / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)


def _write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def _drop(*names: str) -> Callable[[Path], None]:
    def drop(folder: Path) -> None:
        for name in names:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return drop


def _set(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / name, **changes)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 99\n"
INDEX, CARD = "model_index.json", "genserve_model.json"
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no index": (_drop(INDEX), "model_index.json is missing. GenServe wants the whole folder in diffusers format"),
    "index is not JSON": (_write(INDEX, b"{"), "model_index.json is not JSON"),
    "index is a list": (_write(INDEX, b"[]"), "model_index.json is not a JSON object"),
    "another pipeline": (
        _set(INDEX, _class_name="StableDiffusionPipeline"),
        "model_index.json describes a StableDiffusionPipeline; GenServe serves FluxPipeline",
    ),
    "pipeline of its own": (_set(INDEX, _class_name=["pipeline", "Mine"]), "describes a ['pipeline', 'Mine']"),
    "library of its own": (_set(INDEX, vae=["mine", "AutoencoderKL"]), "only diffusers and transformers are trusted"),
    "another class": (
        _set(INDEX, transformer=["diffusers", "SD3Transformer2DModel"]),
        "transformer is a SD3Transformer2DModel; FLUX has a FluxTransformer2DModel",
    ),
    "parts not named": (_write(INDEX, b'{"_class_name": "FluxPipeline"}'), "does not name transformer, text_encoder"),
    "no transformer": (_drop("transformer"), "transformer/ is missing"),
    "no scheduler": (_drop("scheduler"), "scheduler/ is missing"),
    "no config": (_drop("text_encoder_2/config.json"), "text_encoder_2/config.json is missing"),
    "no tokenizer config": (_drop("tokenizer/tokenizer_config.json"), "tokenizer/tokenizer_config.json is missing"),
    "no merges": (
        _drop("tokenizer/merges.txt", "tokenizer/tokenizer.json"),
        "tokenizer/ has no vocabulary (vocab.json + merges.txt or",
    ),
    "no weights": (_drop(f"vae/{WEIGHTS}"), f"vae/ has no weights: {WEIGHTS} is missing"),
    "pickled weights": (_only_bin, "text_encoder/ has its weights only as pytorch_model.bin, which may run code"),
    "a variant": (_variant, "vae/ has diffusion_pytorch_model.fp16.safetensors where"),
    "a shard is missing": (_no_shard, "transformer/diffusion_pytorch_model-00002-of-00002.safetensors is missing"),
    "a tensor is missing": (_shard_of_another_model, "lacks 1 of its tensors, e.g. added.weight"),
    "a shard elsewhere": (_shard_outside, "has no weight_map of file names"),
    "cut weights": (_cut, "its header declares"),
    "longer weights": (_longer, "its header declares"),
    "a shape that lies": (_lies_about_a_shape, f"vae/{WEIGHTS}"),
    "header nested": (_nested_header, "has a broken safetensors header"),
    "a header is no JSON": (_write(f"vae/{WEIGHTS}", b"\x08" + bytes(7) + b"notjson!"), "broken safetensors"),
    "a header without end": (_write(f"vae/{WEIGHTS}", b"\xff" * 64), "is not a safetensors file or has a broken"),
    "empty weights": (_write(f"vae/{WEIGHTS}", b""), "is not a safetensors file"),
    "a pointer for weights": (_write(f"transformer/{WEIGHTS}", POINTER), "is a git-LFS pointer"),
    "a pointer for a config": (_write("vae/config.json", POINTER), "vae/config.json is a git-LFS pointer"),
    "code": (_write("transformer/modeling.py", b""), "transformer/modeling.py is code"),
    "code at the top": (_write("pipeline.py", b""), "pipeline.py is code"),
    "auto_map": (_set("text_encoder/config.json", auto_map={"AutoModel": "m.M"}), "code of its own (auto_map)"),
    "guidance is no bool": (_set("transformer/config.json", guidance_embeds="yes"), "guidance_embeds must be true"),
    "no levels": (_set("vae/config.json", block_out_channels=[]), "block_out_channels must be a list"),
    "card with a slip": (_write(CARD, b'{"stepz": 5}'), "genserve_model.json has no field 'stepz'"),
    "card out of range": (_write(CARD, b'{"steps": 0}'), "genserve_model.json does not fit"),
    "card says embedded": (_write(CARD, b'{"embedded": true}'), "has no field 'embedded'"),
    "card with a wrong step": (_write(CARD, b'{"side_multiple": 4}'), "side_multiple must be a multiple of 8"),
    "card with a wrong size": (_write(CARD, b'{"width": 1001}'), "the default size 1001x1024 is not one"),
    "card with a longer prompt": (_write(CARD, b'{"prompt_tokens_max": 513}'), "prompt_tokens_max must be 1 to 512"),
    "card with too many steps": (_write(CARD, b'{"steps": 200}'), "steps is more than steps_max"),
    "card with guidance of its own": (_write(CARD, b'{"guided": false}'), "guided must be true"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(folder: Path, fault: str):
    plant, words = FAULTS[fault]
    open_model(GpuDaemonSettings(model_path=str(folder)))  # whole before
    plant(folder)
    error = _refusal(folder)
    assert words in error
    assert error.startswith(f"the model folder {folder} cannot be served:\n  - ")
    assert error.count("\n") == 1, "one fault, one line"


def test_all_faults_are_told_at_once(folder: Path):
    for name in ("no scheduler", "pickled weights", "cut weights", "code", "no merges"):
        FAULTS[name][0](folder)
    lines = _refusal(folder).splitlines()
    assert len(lines) == 6
    assert all(line.startswith("  - ") for line in lines[1:])


def test_very_many_faults_are_counted(folder: Path):
    for number in range(50):
        (folder / f"code{number}.py").touch()
    assert _refusal(folder).endswith("\n  - and 30 more")


@pytest.mark.parametrize("name", ["flux1-dev.safetensors", "flux1-dev-Q4.gguf", "flux.ckpt"])
def test_single_file_checkpoints_are_told_what_is_wanted(tmp_path: Path, name: str):
    file = tmp_path / name
    file.write_bytes(b"12345678")
    error = _refusal(file)
    assert f"it is a single-file checkpoint ({file.suffix})" in error
    assert "hf download black-forest-labs/FLUX.1-dev --local-dir" in error
    assert f"model_index.json is missing; it holds the single-file checkpoint {name}" in _refusal(tmp_path)


def test_paths_that_lead_nowhere(tmp_path: Path):
    assert "it does not exist. GenServe wants" in _refusal(tmp_path / "gone")
    file = tmp_path / "notes.txt"
    file.touch()
    assert "it is a file. GenServe wants" in _refusal(file)


def test_a_hugging_face_cache_entry(folder: Path, tmp_path: Path):
    entry = tmp_path / "models--black-forest-labs--FLUX.1-schnell"
    snapshot = entry / "snapshots" / "0123abcd"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    assert f"name the snapshot inside it: {snapshot}" in _refusal(entry)
    assert _card(snapshot)["name"] == "flux1-schnell"


def test_the_embedded_model():
    model = open_model(GpuDaemonSettings())
    assert model.path == EMBEDDED
    assert model.card.embedded
    assert model.card.name == "genserve-shapes"
    assert "shapes" in model.card.description
    assert model.parameters == sum(
        tensor.numel() for file in EMBEDDED.glob("*/*.safetensors") for tensor in load_file(file).values()
    )


def test_a_card_for_dev(folder: Path):
    card = _card(folder)
    assert card == {
        "name": "flux1-dev",
        "description": "",
        "embedded": False,
        "width": 1024,
        "height": 1024,
        "side_min": 256,
        "side_max": 2048,
        "side_multiple": 8,  # of the folder's small VAE
        "pixels_max": 4_194_304,
        "enlarges": False,
        "enlarged_side_max": 2048,
        "steps": 28,
        "steps_max": 100,
        "guidance_scale": 3.5,
        "guided": True,
        "prompt_tokens_max": 512,
        "edits": True,
        "formats": ("png", "jpeg", "webp"),
    }


def test_a_card_for_schnell(folder: Path):
    _edit(folder / "transformer" / "config.json", guidance_embeds=False)
    renamed = folder.rename(folder.with_name("FLUX.1-schnell"))
    card = _card(renamed)
    assert (card["name"], card["steps"], card["guided"], card["prompt_tokens_max"]) == ("flux1-schnell", 4, False, 256)


@pytest.mark.parametrize(
    ("called", "name"),
    [("FLUX.1-dev", "flux1-dev"), ("My Flux (v2)", "my-flux-v2"), ("模型", "flux"), ("flux_krea", "flux_krea")],
)
def test_names_come_from_folders(folder: Path, called: str, name: str):
    assert _card(folder.rename(folder.with_name(called)))["name"] == name


def test_the_setting_names_the_model(folder: Path):
    (folder / CARD).write_text('{"name": "from-card", "steps": 12}')
    assert (_card(folder)["name"], _card(folder)["steps"]) == ("from-card", 12)
    assert open_model(GpuDaemonSettings(model_path=str(folder), model_name="mine")).card.name == "mine"
    assert open_model(GpuDaemonSettings(model_name="mine")).card.name == "mine"
    with pytest.raises(SettingsError, match="model_name = '-x'"):
        open_model(GpuDaemonSettings(model_name="-x"))


def test_shards_hold_what_one_file_held(folder: Path):
    whole = open_model(GpuDaemonSettings(model_path=str(folder)))
    _shard(folder)
    assert open_model(GpuDaemonSettings(model_path=str(folder))).parameters == whole.parameters


def test_a_relative_path_and_links_are_followed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    real = folder.parent / "blob"
    (folder / "vae" / WEIGHTS).rename(real)
    (folder / "vae" / WEIGHTS).symlink_to(real)
    monkeypatch.chdir(folder.parent)
    assert open_model(GpuDaemonSettings(model_path="FLUX.1-dev")).path == folder


def _refusal(path: Path) -> str:
    with pytest.raises(GenServeError) as caught:
        open_model(GpuDaemonSettings(model_path=str(path)))
    assert caught.value.code == "model_load_failed"
    return caught.value.message


def _card(path: Path) -> dict[str, Any]:
    card = open_model(GpuDaemonSettings(model_path=str(path))).card
    return {name: getattr(card, name) for name in card.__struct_fields__}
