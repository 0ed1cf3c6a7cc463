"""How often genserve-shapes draws what it is asked: held-out captions, judged by a checker that looks at pixels.

    python -m bench.shapes_accuracy [--folder FOLDER] [--steps 4 8 20 28] [--share 1.0] [--device cuda]

The captions combine colours, shapes, places and relations that training never saw together; each scene is
told once in English and once in Chinese, and drawn once: the first picture counts. `--share 0.1` asks a tenth
of them. On two CPU cores the whole takes most of an hour, on a GPU a minute.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from diffusers import FluxPipeline

from gpu_daemon.model_folder import EMBEDDED
from training.evaluate import TITLES, Question, Score, questions, scores
from training.models import GUIDANCE

SEED = 7
LANGUAGES = ("English", "Chinese")
RELATED = ("related", "inside")  # two objects and how they stand to each other


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=EMBEDDED)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 20, 28])
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=0, help="pictures drawn together; 0: 64 on a GPU, else 4")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    pipeline = FluxPipeline.from_pretrained(args.folder, dtype=torch.float32).to(args.device)
    pipeline.set_progress_bar_config(disable=True)
    asked = questions(SEED, args.share)
    batch = args.batch or (64 if args.device == "cuda" else 4)
    print(f"{len(asked)} held-out captions, guidance {args.guidance:g}, on {args.device}")
    # spawned: a forked child of a process whose arithmetic has threads may wait for them for ever
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1), mp_context=get_context("spawn")) as judges:
        for steps in args.steps:
            begin = time.perf_counter()
            table = scores(pipeline, asked, steps=steps, guidance=args.guidance, batch=batch, judges=judges)
            report(steps, table, time.perf_counter() - begin, asked)


def report(steps: int, table: dict[tuple[str, str], Score], seconds: float, asked: list[Question]) -> None:
    """One number of steps: a line a kind, then what was wrong most often."""
    print(f"\n{steps} steps ({len(asked)} pictures in {seconds:.0f} s)")
    head = "colour, shape, place and relation right   everything right"
    print(f"{'':44} {head}\n{'':44}" + "  English  Chinese" * 2)
    for kind, title in TITLES.items():
        print(line(title, [table[kind, language] for language in LANGUAGES]))
    print(line("two objects with a relation", [total(table, RELATED, language) for language in LANGUAGES]))
    print(line("all", [total(table, tuple(TITLES), language) for language in LANGUAGES]))
    wrongs = total(table, tuple(TITLES), *LANGUAGES).wrongs
    print("wrong most often: " + (", ".join(f"{what} {count}" for what, count in wrongs.most_common(6)) or "nothing"))


def total(table: dict[tuple[str, str], Score], kinds: tuple[str, ...], *languages: str) -> Score:
    """Several kinds and languages as one."""
    whole = Score()
    for kind in kinds:
        for language in languages:
            whole += table[kind, language]
    return whole


def line(title: str, columns: list[Score]) -> str:
    """Shares in percent."""
    asked = "".join(f"{100 * score.right_where_asked / score.pictures:9.1f}" for score in columns)
    everything = "".join(f"{100 * score.right / score.pictures:9.1f}" for score in columns)
    return f"{title:44}{asked}{everything}"


if __name__ == "__main__":
    main()
