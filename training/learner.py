"""One step of learning: gradients of this process's batch, averaged over the team, then the optimizers.

Both halves may be captured as CUDA graphs; between them the processes speak. All gradients lie in one tensor
that never moves, so that captured steps find them and one message carries them.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from training.graphs import StepGraphs
from training.team import Team

Differentiate = Callable[[Sequence[Tensor]], Tensor]  # inputs on the device -> loss, its gradients added up
GRADIENT_NORM_MAX = 1.0
_UPDATE = object()  # the graph of the second half


class Learner:
    """Owns a model's gradients and optimizers. `optimizers` are made from the model and its learning rate, a tensor."""

    def __init__(
        self, model: nn.Module, team: Team, optimizers: Callable[[Tensor], Sequence[torch.optim.Optimizer]]
    ) -> None:
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._team = team
        device = self._parameters[0].device
        self._rate = torch.zeros((), device=device)  # a tensor, so that a captured step sees it change
        sizes = [parameter.numel() for parameter in self._parameters]
        self._gradients = torch.zeros(sum(sizes), device=device)
        for parameter, part in zip(self._parameters, torch.split(self._gradients, sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        self._optimizers = optimizers(self._rate)
        self._graphs: StepGraphs | None = None

    def prepare(self, kinds: Mapping[Hashable, Differentiate], example: Sequence[Tensor]) -> None:
        """Run every kind of first half once, so that no later step stops to compile, or fails at it."""
        for differentiate in kinds.values():
            differentiate(example)
        self._gradients.zero_()

    def capture(
        self, kinds: Mapping[Hashable, Differentiate], example: Sequence[Tensor], chance: torch.Generator | None
    ) -> None:
        """The same, and capture them. `chance` is the generator that they draw from; None: torch's own."""
        graphs = StepGraphs(example, chance)
        for kind, differentiate in kinds.items():
            graphs.capture(kind, differentiate)
        self._gradients.zero_()  # else the optimizers would begin with what each process saw alone
        graphs.capture(_UPDATE, lambda _inputs: self._update())
        self._graphs = graphs

    def step(self, kind: Hashable, differentiate: Differentiate, inputs: Sequence[Tensor], rate: float) -> Tensor:
        """One step on `inputs`, which may lie on the CPU; the loss of this process's batch."""
        self._rate.fill_(rate)
        if self._graphs is not None and self._graphs.takes(kind, inputs):
            loss = self._graphs.replay(kind, inputs)
        else:
            loss = differentiate([tensor.to(self._rate.device) for tensor in inputs])
        self._team.average(self._gradients)
        if self._graphs is not None:
            self._graphs.replay(_UPDATE)
        else:
            self._update()
        self._gradients.zero_()
        return loss

    def _update(self) -> Tensor:
        """The gradients' norm, before they were clipped."""
        norm = nn.utils.clip_grad_norm_(self._parameters, GRADIENT_NORM_MAX)
        for optimizer in self._optimizers:
            optimizer.step()
        return norm
