"""`python -m training.report FOLDER DOCS`: the loss curve and a sheet of 48 held-out prompts, for the docs."""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxPipeline
from matplotlib import pyplot as plt
from PIL import Image

from training.checker import problems
from training.evaluate import Question, pictures, questions
from training.models import GUIDANCE

SEED = 48
COLUMNS, ROWS = 8, 6
GAP = 4  # pixels between pictures
STEPS = 20


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.report", description=__doc__)
    parser.add_argument("folder", type=Path, help="the pipeline folder")
    parser.add_argument("docs", type=Path, help="where the pictures go")
    parser.add_argument("--log", type=Path, help="the training.csv, where the folder has none")
    options = parser.parse_args()
    options.docs.mkdir(parents=True, exist_ok=True)
    loss_curve(options.log or options.folder / "training.csv", options.docs / "loss.png")
    contact_sheet(options.folder, options.docs)
    return 0


def loss_curve(log: Path, picture: Path) -> None:
    """Both stages' losses over their steps, the flow's logarithmic."""
    with log.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    titles = {"vae": "autoencoder: loss", "flow": "flow: mean squared error of the velocity"}
    for axis, (stage, title) in zip(axes, titles.items(), strict=True):
        lines = [row for row in rows if row["stage"] == stage]
        axis.plot([int(row["step"]) for row in lines], [float(row["loss"]) for row in lines], linewidth=1)
        axis.set(title=title, xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def contact_sheet(folder: Path, docs: Path) -> None:
    """48 held-out prompts, one picture each, first try; and the prompts beside them with the checker's word."""
    pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    asked = _chosen(questions(SEED))
    drawn = list(pictures(pipeline, [q.prompt for q in asked], steps=STEPS, guidance=GUIDANCE, batch=8))
    side = drawn[0].shape[0] + GAP
    sheet = np.full((ROWS * side + GAP, COLUMNS * side + GAP, 3), 96, np.uint8)
    lines = [
        "# 48 held-out prompts",
        "",
        "What [genserve-shapes](../../gpu_daemon/models/genserve-shapes/README.md) draws of prompts that combine",
        "colours, shapes, places and relations it was not trained on: the first picture of each prompt, none chosen,",
        f"{STEPS} steps. Made by",
        "`python -m training.report gpu_daemon/models/genserve-shapes docs/shapes --log docs/shapes/training.csv`.",
        "",
        "![the 48 pictures, 8 a row](sheet.png)",
        "",
        "| row | column | prompt | checker |",
        "|---|---|---|---|",
    ]
    for index, (question, picture) in enumerate(zip(asked, drawn, strict=True)):
        row, column = divmod(index, COLUMNS)
        top, left = GAP + row * side, GAP + column * side
        sheet[top : top + side - GAP, left : left + side - GAP] = picture
        wrong = "; ".join(problems(picture, question.scene)) or "right"
        lines.append(f"| {row + 1} | {column + 1} | {question.prompt} | {wrong} |")
    Image.fromarray(sheet).save(docs / "sheet.png", optimize=True)
    (docs / "sheet.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _chosen(asked: list[Question]) -> list[Question]:
    """A row of each kind, and one more of the first; English and Chinese in turn, never the same scene twice."""
    kinds = ("one", "one", "related", "inside", "placed", "row")
    chosen: list[Question] = []
    for kind in kinds:
        english = [q for q in asked if q.kind == kind and q.language == "English"]
        chinese = [q for q in asked if q.kind == kind and q.language == "Chinese"]
        pairs = [pair for pair in zip(english, chinese, strict=True) if pair[0] not in chosen and pair[1] not in chosen]
        chosen += [pair[index % 4 == 3] for index, pair in enumerate(pairs[:COLUMNS])]
    return chosen


if __name__ == "__main__":
    sys.exit(main())
