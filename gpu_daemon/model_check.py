"""Is this a FLUX folder in diffusers format that can be loaded safely? Every fault is found, none repaired.

Reads JSON and the headers of safetensors files; imports no torch and runs nothing. What the model is
called and what it can draw is model_folder's.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpu_daemon.safetensors_header import BadFileError, Header, read_header, read_json

INDEX = "model_index.json"
PIPELINE = "FluxPipeline"
LIBRARIES = ("diffusers", "transformers")
SINGLE_FILES = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
UNSAFE_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
HOW_TO_GET = (
    "GenServe wants the whole folder in diffusers format; get it with "
    "`hf download black-forest-labs/FLUX.1-dev --local-dir FLUX.1-dev`"
)


@dataclass(frozen=True)
class Part:
    """A component of the pipeline: its config file, its class, its weights' file stem or its vocabularies."""

    config: str
    class_name: str = ""  # empty: any of its library
    weights: str = ""  # empty: it has none
    vocabularies: tuple[tuple[str, ...], ...] = ()  # one of these sets of files must be there


PARTS = {
    "transformer": Part("config.json", "FluxTransformer2DModel", "diffusion_pytorch_model"),
    "text_encoder": Part("config.json", "CLIPTextModel", "model"),
    "text_encoder_2": Part("config.json", "T5EncoderModel", "model"),
    "vae": Part("config.json", "AutoencoderKL", "diffusion_pytorch_model"),
    "tokenizer": Part("tokenizer_config.json", vocabularies=(("vocab.json", "merges.txt"), ("tokenizer.json",))),
    "tokenizer_2": Part("tokenizer_config.json", vocabularies=(("tokenizer.json",), ("spiece.model",))),
    "scheduler": Part("scheduler_config.json"),
}


# How a part's weights name their layers, and which number of its config says how many there are.
LAYERS = {
    "transformer": (
        (re.compile(r"^transformer_blocks\.(\d+)\."), "num_layers"),
        (re.compile(r"^single_transformer_blocks\.(\d+)\."), "num_single_layers"),
    ),
    "text_encoder": ((re.compile(r"encoder\.layers\.(\d+)\."), "num_hidden_layers"),),
    "text_encoder_2": ((re.compile(r"encoder\.block\.(\d+)\."), "num_layers"),),
}
LAYERS_MAX = 10_000


@dataclass
class Weights:
    """What the headers of one part's files say."""

    files: int = 0
    size: int = 0  # bytes
    parameters: int = 0
    dtypes: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


@dataclass
class Checked:
    """What was found: faults, one sentence each, that begin with the part's name; the parts' configs and weights."""

    faults: list[str] = field(default_factory=list)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """The numbers in all weights."""
        return sum(weights.parameters for weights in self.weights.values())

    def faults_of(self, part: str) -> list[str]:
        """Those of one part; of '' those of no part."""
        own = {name: [f for f in self.faults if f.startswith(f"{name}/")] for name in PARTS}
        return own[part] if part else [f for f in self.faults if not any(f in faults for faults in own.values())]


def check_folder(path: Path) -> Checked:
    """Look at every file that loading would need. Raises nothing for what is wrong with them."""
    checked = Checked()
    if not path.exists():
        checked.faults.append(f"it does not exist. {HOW_TO_GET}")
    elif not path.is_dir():
        checked.faults.append(_what_file(path))
    elif not (path / INDEX).exists():
        checked.faults.append(_no_index(path))
    else:
        checked.faults += _code(path)
        if _check_index(path, checked):
            for name, part in PARTS.items():
                _check_part(path / name, name, part, checked)
    return checked


def _what_file(path: Path) -> str:
    if path.suffix in SINGLE_FILES:
        return f"it is a single-file checkpoint ({path.suffix}). {HOW_TO_GET}"
    return f"it is a file. {HOW_TO_GET}"


def _no_index(path: Path) -> str:
    snapshots = sorted(str(found.parent) for found in path.glob(f"snapshots/*/{INDEX}"))
    if snapshots:
        return f"it is a Hugging Face cache entry; name the snapshot inside it: {snapshots[-1]}"
    singles = sorted(found.name for found in path.iterdir() if found.suffix in SINGLE_FILES)
    held = f"; it holds the single-file checkpoint {singles[0]}" if singles else ""
    return f"{INDEX} is missing{held}. {HOW_TO_GET}"


def _code(path: Path) -> Iterator[str]:
    for file in sorted([*path.glob("*.py"), *path.glob("*/*.py")]):
        yield f"{file.relative_to(path)} is code, and GenServe runs none from model folders; remove it"


def _check_index(path: Path, checked: Checked) -> bool:
    """Is the index one of a FluxPipeline, so that its parts are worth a look?"""
    try:
        index = read_json(path / INDEX)
    except BadFileError as error:
        checked.faults.append(f"{INDEX} {error}")
        return True
    kind = index.get("_class_name")
    if kind != PIPELINE:
        checked.faults.append(f"{INDEX} describes a {kind or 'nameless pipeline'}; GenServe serves {PIPELINE}")
        return False
    for name, entry in index.items():
        if name.startswith("_") or entry in ([None, None], None):
            continue
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in LIBRARIES):
            checked.faults.append(f"{INDEX} takes {name} from {entry!r}; only {' and '.join(LIBRARIES)} are trusted")
        elif name in PARTS and PARTS[name].class_name not in ("", entry[1]):
            checked.faults.append(f"{INDEX} says {name} is a {entry[1]}; FLUX has a {PARTS[name].class_name}")
    unnamed = [name for name in PARTS if name not in index]
    if unnamed:
        checked.faults.append(f"{INDEX} does not name {', '.join(unnamed)}")
    return True


def _check_part(folder: Path, name: str, part: Part, checked: Checked) -> None:
    if not folder.is_dir():
        checked.faults.append(f"{name}/ is missing; download the whole folder again")
        return
    try:
        config = checked.configs[name] = read_json(folder / part.config)
    except BadFileError as error:
        missing = not (folder / part.config).exists()
        what = "is missing; download it again" if missing else str(error)
        checked.faults.append(f"{name}/{part.config} {what}")
    else:
        if "auto_map" in config:
            checked.faults.append(f"{name}/{part.config} asks for code of its own (auto_map); GenServe runs none")
    if part.vocabularies and not any(all((folder / f).exists() for f in files) for files in part.vocabularies):
        wanted = " or ".join(" + ".join(files) for files in part.vocabularies)
        checked.faults.append(f"{name}/ has no vocabulary ({wanted}); download it again")
    if part.weights:
        _check_weights(folder, name, part.weights, checked)


def _check_weights(folder: Path, name: str, stem: str, checked: Checked) -> None:
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    checked.weights[name] = Weights()
    before = len(checked.faults)
    if index.exists():
        _check_shards(index, name, checked)
    elif single.exists():
        _header(single, name, checked)
    else:
        checked.faults.append(f"{name}/ {_no_weights(folder, single.name)}")
    if len(checked.faults) == before:
        _check_layers(name, checked)


def _check_layers(name: str, checked: Checked) -> None:
    """Are there weights for as many layers as the config says?

    What is missing, the libraries would fill with random numbers and say nothing.
    """
    weights, config = checked.weights[name], checked.configs.get(name, {})
    for pattern, key in LAYERS.get(name, ()):
        there = {int(found[1]) for tensor in weights.names if (found := pattern.search(tensor))}
        wanted = config.get(key)
        if isinstance(wanted, int) and 0 < wanted <= LAYERS_MAX and there and there != set(range(wanted)):
            checked.faults.append(
                f"{name}/ has weights for {len(there)} layers where {key} = {wanted} in its config; download it again"
            )


def _no_weights(folder: Path, wanted: str) -> str:
    unsafe = sorted(file.name for pattern in UNSAFE_WEIGHTS for file in folder.glob(pattern))
    if unsafe:
        return f"has its weights only as {unsafe[0]}, which may run code; GenServe loads safetensors only"
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    if others:
        return f"has {others[0]} where {wanted} is expected; a variant must be renamed"
    return f"has no weights: {wanted} is missing; download it again"


def _check_shards(index: Path, name: str, checked: Checked) -> None:
    try:
        places = read_json(index).get("weight_map")
    except BadFileError as error:
        checked.faults.append(f"{name}/{index.name} {error}")
        return
    if not (isinstance(places, dict) and places and all(_is_plain_name(shard) for shard in places.values())):
        checked.faults.append(f"{name}/{index.name} has no weight_map of file names; download it again")
        return
    for shard in sorted(set(places.values())):
        if not (index.parent / shard).exists():
            checked.faults.append(f"{name}/{shard} is missing though {index.name} names it; download it again")
            continue
        header = _header(index.parent / shard, name, checked)
        absent = [t for t, at in places.items() if header and at == shard and t not in header.tensors]
        if absent:
            checked.faults.append(
                f"{name}/{shard} lacks {len(absent)} of its tensors, e.g. {absent[0]}; download it again"
            )


def _header(file: Path, name: str, checked: Checked) -> Header | None:
    try:
        header = read_header(file)
    except BadFileError as error:
        checked.faults.append(f"{name}/{file.name} {error}")
        return None
    weights = checked.weights[name]
    weights.files += 1
    weights.size += header.size
    weights.parameters += header.parameters
    weights.dtypes |= header.dtypes
    weights.names |= set(header.tensors)
    return header


def _is_plain_name(shard: object) -> bool:
    return isinstance(shard, str) and Path(shard).name == shard
