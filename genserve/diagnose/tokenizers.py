"""SentencePiece and the two tokenizers: that they load, know words, and give no number that the encoders lack.

The libraries are loaded by a probe in a process of its own.
"""

from collections.abc import Iterator
from typing import Any

from genserve.diagnose.finding import Check, Note, check, fail, ok, pip_install, quoted, warn
from genserve.diagnose.host import Host, NotChecked
from genserve.diagnose.model import fetch
from genserve.diagnose.outside import ProbeFailed, probe
from genserve.diagnose.requirements import restore
from gpu_daemon.model_check import INDEX
from gpu_daemon.model_folder import EMBEDDED

PROBE_WITHIN_S = 30.0
OF = {"tokenizer": ("CLIP", "text_encoder"), "tokenizer_2": ("T5", "text_encoder_2")}


@check(
    "tokenizers.sentencepiece",
    "SentencePiece and tokenizers, the two libraries that cut prompts",
    bound_s=PROBE_WITHIN_S + 5,
)
def sentencepiece(host: Host) -> Iterator[Note]:
    """Imported in a process of their own."""
    host.need_model()
    found = _ask(host, "")
    for name, error in found["failed"].items():
        told = warn if name in host.spared else fail
        yield told(f"{name} cannot be imported: {error}", pip_install(name, options="--force-reinstall"))
    if not found["failed"]:
        yield ok(", ".join(f"{name} {version}" for name, version in found["versions"].items()))


def _tokenizer(part: str) -> Check:
    name, encoder = OF[part]

    @check(
        f"tokenizers.{name.lower()}",
        f"The {name} tokenizer: its files load, no plain word is unknown to it, {encoder} knows all its numbers",
        bound_s=PROBE_WITHIN_S + 5,
    )
    def look(host: Host) -> Iterator[Note]:
        host.need_model()
        if not (host.model_path / INDEX).exists():
            raise NotChecked("there is no model folder: see model.folder")
        if host.model.faults_of(part):
            raise NotChecked(f"it has faults: see model.{part}")
        found = _ask(host, part)
        if found["failed"]:
            raise NotChecked("the libraries are missing: see tokenizers.sentencepiece")
        again = _again(host, part)
        for file, error in found["broken"].items():
            yield fail(f"{part}/{file} cannot be used: {error}", again)
        if found["unknown"]:
            words = ", ".join(found["unknown"])
            yield fail(
                f"{name} does not know plain words ({words}): its vocabulary is damaged or another model's", again
            )
        vocabulary = host.model.configs.get(encoder, {}).get("vocab_size")
        if isinstance(vocabulary, int) and found["largest"] >= vocabulary:
            yield fail(
                f"{part}/ gives numbers up to {found['largest']}, {encoder} knows {vocabulary}: they are of two models",
                again,
            )
        if found["disagree"]:
            yield warn(f"{part}/ spiece.model and tokenizer.json cut {found['disagree']!r} differently", again)
        knows = "reads English" + "".join(f", {script}" for script in found["scripts"])
        yield ok(f"{found['pieces']:,} pieces; {knows}")

    return look


def _ask(host: Host, part: str) -> Any:
    try:
        arguments = [str(host.model_path / part)] if part else []
        return probe("gpu_daemon.engine.probe_tokenizers", arguments, host.env, within_s=PROBE_WITHIN_S)
    except ProbeFailed as error:
        return {"failed": {"tokenizers": str(error)}, "versions": {}}


def _again(host: Host, part: str) -> str:
    if host.model_path == EMBEDDED:
        return restore(EMBEDDED)
    return f"rm -r {quoted(host.model_path / part)} && {fetch(host.model_path, f'{part}/*')}"


CHECKS = (sentencepiece, *(_tokenizer(part) for part in OF))
