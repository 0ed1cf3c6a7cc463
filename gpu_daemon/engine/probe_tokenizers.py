"""`python -m gpu_daemon.engine.probe_tokenizers [FOLDER]`: loads a tokenizer's files, prints how that went as JSON.

For a diagnosis. It imports the two small libraries that cut prompts, and neither torch nor transformers.
"""

import importlib
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = ("sentencepiece", "tokenizers")
PLAIN = "a red circle and a blue square on the table"
SCRIPTS = {
    "Chinese": "一只猫在窗边",
    "Japanese": "ねこのいる風景",
    "Cyrillic": "маленький дом",
    "Arabic": "مرحبا",
    "emoji": "🚀",
}
ERROR_CHARS_MAX = 300


def main(arguments: list[str]) -> None:
    """Print versions and failures of the libraries; with a folder, what its tokenizer does."""
    failed = {}
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a broken library raises
            failed[name] = _words(error)
    told: dict[str, Any] = {
        "failed": failed,
        "versions": {name: metadata.version(name) for name in LIBRARIES if name not in failed},
    }
    if arguments and not failed:
        told |= _look(Path(arguments[0]))
    sys.stdout.write(json.dumps(told) + "\n")


def _look(folder: Path) -> dict[str, Any]:
    """Which files do not load, which words are unknown, how many pieces there are and the largest number."""
    broken: dict[str, str] = {}
    pieces = _loaded(folder / "spiece.model", _sentencepiece, broken)
    fast = _loaded(folder / "tokenizer.json", _fast, broken)
    table = _loaded(folder / "vocab.json", _table, broken)
    told: dict[str, Any] = {"broken": broken, "unknown": [], "scripts": [], "pieces": 0, "largest": -1, "disagree": ""}
    if pieces is not None:
        told |= {"pieces": pieces.get_piece_size(), "largest": pieces.get_piece_size() - 1}
        told["unknown"] = [word for word in PLAIN.split() if pieces.unk_id() in pieces.encode(word)]
        told["scripts"] = [name for name, text in SCRIPTS.items() if pieces.unk_id() not in pieces.encode(text)]
    if fast is not None:
        numbers = fast.get_vocab(with_added_tokens=True).values()
        told["pieces"] = max(told["pieces"], len(numbers))
        told["largest"] = max(told["largest"], *numbers)
        if pieces is not None:
            theirs = fast.encode(PLAIN, add_special_tokens=False).ids
            told["disagree"] = "" if theirs == pieces.encode(PLAIN) else PLAIN
        else:
            unknown = {fast.token_to_id(token) for token in ("<unk>",)} - {None}
            told["unknown"] = [word for word in PLAIN.split() if unknown & set(fast.encode(word).ids)]
            told["scripts"] = [n for n, text in SCRIPTS.items() if not unknown & set(fast.encode(text).ids)]
    if table is not None:
        told["pieces"] = max(told["pieces"], len(table))
        told["largest"] = max([told["largest"], *table.values()])
    return told


def _loaded(path: Path, load: Any, broken: dict[str, str]) -> Any:
    if not path.exists():
        return None
    try:
        return load(path)
    except Exception as error:  # whatever a library raises for a damaged file
        broken[path.name] = _words(error)
        return None


def _sentencepiece(path: Path) -> Any:
    import sentencepiece  # noqa: PLC0415  # may be missing: see main

    return sentencepiece.SentencePieceProcessor(model_file=str(path))


def _fast(path: Path) -> Any:
    import tokenizers  # noqa: PLC0415  # may be missing: see main

    return tokenizers.Tokenizer.from_file(str(path))


def _table(path: Path) -> dict[str, int]:
    table = json.loads(path.read_text("utf-8"))
    if not (isinstance(table, dict) and table and all(isinstance(number, int) for number in table.values())):
        raise ValueError("it is no table of pieces and their numbers")
    return table


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip()[:ERROR_CHARS_MAX]


if __name__ == "__main__":
    main(sys.argv[1:])
