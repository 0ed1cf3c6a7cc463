"""Muon: momentum whose matrices are made orthogonal before they are applied, for the weights inside the blocks.

Matrices of one shape are treated in one batch. The update is scaled to the size that AdamW's has in its
first steps, so one learning rate and one weight decay serve both.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
NEWTON_SCHULZ_STEPS = 5
UPDATE_RMS = 1.0  # of a change, in learning rates


class Muon(torch.optim.Optimizer):
    """For two-dimensional parameters that all have gradients. `lr` may be a tensor."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float | Tensor, weight_decay: float) -> None:
        super().__init__(list(parameters), {"lr": lr, "weight_decay": weight_decay})
        self._momenta: dict[torch.Size, Tensor] = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002  # no closures here
        """One update from the gradients that are there."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in shapes.items():
                gradient = torch.stack(
                    [parameter.grad for parameter in parameters if parameter.grad is not None]
                ).float()
                momentum = self._momenta.setdefault(shape, torch.zeros_like(gradient))
                momentum.lerp_(gradient, 1 - MOMENTUM)
                update = orthogonal(gradient.lerp(momentum, MOMENTUM)) * (UPDATE_RMS * math.sqrt(max(shape)))
                update = (update * -group["lr"]).to(parameters[0].dtype)
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(update.unbind()))


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly: (n, rows, columns) by five Newton-Schulz steps of fifth order."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x
