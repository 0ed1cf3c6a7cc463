"""The training's parts: schedules, the optimizer, and a few real steps of both kinds on the CPU."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from torch import nn

from training import models
from training.data import load_tokenizers
from training.flow import DECAY_SHARE, LEARNING_RATE, FlowTrainer, Run, learning_rate
from training.muon import Muon, orthogonal
from training.progress import Budget, Log
from training.team import Team


def test_the_rate_warms_up_stays_and_falls_to_zero():
    assert learning_rate(0.0, 0) < LEARNING_RATE / 50
    assert learning_rate(0.4, 1000) == LEARNING_RATE
    assert learning_rate(1 - DECAY_SHARE / 2, 1000) == pytest.approx(LEARNING_RATE / 2)
    assert learning_rate(1.0, 1000) == pytest.approx(0.0)


def test_budgets():
    assert Budget(None).share_used() == 0.0
    assert Budget(None).left_s() == float("inf")
    assert Budget(0.001).share_used() > 0


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 128, 32), (2, 32, 128)])
def test_updates_are_orthogonal(shape: tuple[int, int, int]):
    torch.manual_seed(1)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)).float())
    assert values.quantile(0.1) > 0.5  # the smallest of a square matrix are near zero before, too
    assert values.max() < 1.4


def test_muon_finds_a_linear_map():
    torch.manual_seed(2)
    wanted, layer = torch.randn(16, 16) / 4, nn.Linear(16, 16, bias=False)
    optimizer = Muon([layer.weight], lr=0.01, weight_decay=0.0)
    inputs = torch.randn(256, 16)
    first = last = 0.0
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 150)
        loss = (layer(inputs) - inputs @ wanted.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = first or loss.item(), loss.item()
    assert last < first / 50


def test_a_run_moves_the_average_keeps_it_and_resumes(shapes_folder: Path, tmp_path: Path):
    clip, t5 = load_tokenizers(shapes_folder)
    torch.manual_seed(3)
    text_encoder, text_encoder_2 = models.new_text_encoders(clip, t5)
    pipeline = FluxPipeline(
        scheduler=models.new_scheduler(), vae=models.new_vae(), text_encoder=text_encoder, tokenizer=clip,
        text_encoder_2=text_encoder_2, tokenizer_2=t5, transformer=models.new_transformer(),
    )  # fmt: skip
    pipeline.vae.register_to_config(scaling_factor=1.0, shift_factor=0.0)
    run = Run(
        shapes_folder,
        1,
        0,
        4,
        2,
        "cpu",
        0,
        Budget(None),
        Budget(None),
        compiled=False,
        captured=False,
        team=Team("cpu"),
    )
    trainer = FlowTrainer(pipeline, run, Log(tmp_path / "training.csv"))
    before = {name: value.clone() for name, value in trainer.shipped.transformer.state_dict().items()}
    assert trainer.train(lambda _step: None) == 4  # the last one with guidance
    after = trainer.shipped.transformer.state_dict()
    assert any(not after[name].equal(value) for name, value in before.items())
    assert all(value.isfinite().all() for value in after.values())
    models.save(trainer.shipped, tmp_path / "model")
    assert trainer.shipped.transformer.dtype == torch.float32
    again = FluxPipeline.from_pretrained(tmp_path / "model", dtype=torch.float32)
    for name, value in again.transformer.state_dict().items():
        assert torch.allclose(value, after[name], atol=1e-3), name
    assert (tmp_path / "training.csv").read_text().count("flow") == 1
