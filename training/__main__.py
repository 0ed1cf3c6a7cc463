"""`python -m training FOLDER`: trains genserve-shapes from nothing and writes its pipeline folder.

A run may be cut in legs: `--pause-minutes` ends one early, and the same command with `--resume` goes on
from the folder. Seeds are fixed; only the sums on a GPU differ from run to run.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from diffusers import FluxPipeline

from training import flow, models, vae
from training.data import load_tokenizers
from training.flow import FlowTrainer, Run
from training.progress import Budget, Log
from training.team import Team
from training.tokenizers import train_tokenizers

STATE = "training_state.json"


def main() -> int:
    """The command."""
    options = _options()
    started = time.monotonic()
    team = Team(options.device)
    torch.manual_seed(options.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)  # its backward fails at 64 and 320 tokens
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    log = Log(folder / "training.csv", new=team.leads)
    pause, finish = (Budget(None if m is None else m * 60) for m in (options.pause_minutes, options.finish_minutes))
    first = json.loads((folder / STATE).read_text())["step"] if options.resume else 0
    if not options.resume:
        begun = _begin(folder, options, team, log)
        if team.leads:
            _save(begun, folder, first)
    team.wait()
    pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    run = Run(
        folder, options.seed, first, options.steps, options.batch, options.device, options.workers,
        pause, finish, options.compile, options.compile and options.capture, team,
    )  # fmt: skip
    trainer = FlowTrainer(pipeline, run, log)
    reached = trainer.train(lambda step: _save(trainer.shipped, folder, step))
    if team.leads:
        _save(trainer.shipped, folder, reached)
    team.leave()
    sys.stderr.write(f"step {reached} of {options.steps} after {time.monotonic() - started:.0f} s: {folder}\n")
    return 0


def _begin(folder: Path, options: argparse.Namespace, team: Team, log: Log) -> FluxPipeline:
    if team.leads:
        train_tokenizers(folder, options.seed)
    team.wait()
    clip, t5 = load_tokenizers(folder)
    autoencoder = models.new_vae()
    torch.manual_seed(options.seed * team.size + team.rank)  # the autoencoder's noise
    lesson = vae.Lesson(
        seed=options.seed, steps=options.vae_steps, batch=min(options.vae_batch, options.batch), device=options.device,
        workers=options.workers, compiled=options.compile, captured=options.compile and options.capture,
        minutes=options.vae_minutes, team=team,
    )  # fmt: skip
    vae.train_vae(autoencoder, folder, lesson, log)
    torch.manual_seed(options.seed + 1)
    text_encoder, text_encoder_2 = models.new_text_encoders(clip, t5)
    return FluxPipeline(
        scheduler=models.new_scheduler(), vae=autoencoder, text_encoder=text_encoder, tokenizer=clip,
        text_encoder_2=text_encoder_2, tokenizer_2=t5, transformer=models.new_transformer(),
    )  # fmt: skip


def _save(pipeline: FluxPipeline, folder: Path, step: int) -> None:
    models.save(pipeline, folder)
    (folder / STATE).write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("folder", type=Path, help="the pipeline folder to write")
    parser.add_argument("--seed", type=int, default=20261123)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=flow.STEPS)
    parser.add_argument("--batch", type=int, default=flow.BATCH, help="pictures a step, of each GPU")
    parser.add_argument("--vae-steps", type=int, default=vae.STEPS)
    parser.add_argument("--vae-batch", type=int, default=vae.BATCH)
    parser.add_argument("--vae-minutes", type=float, help="the autoencoder's schedule ends with them")
    parser.add_argument("--pause-minutes", type=float, help="stop after them, to go on later with --resume")
    parser.add_argument("--finish-minutes", type=float, help="the whole schedule ends with them")
    parser.add_argument("--resume", action="store_true", help="go on from what the folder holds")
    parser.add_argument("--workers", type=int, default=8, help="processes that write captions")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    parser.add_argument("--capture", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
