"""A whole training step as one CUDA graph: the many small kernels of a small model start without waiting for Python.

A step is captured once for each of its kinds and replayed on inputs copied into the same memory.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

WARM_UP_STEPS = 3  # before the capture: they compile, and make what a captured step may not make


class StepGraphs:
    """Steps of one shape. `chance` is the generator that they draw from."""

    def __init__(self, example: Sequence[Tensor], chance: torch.Generator) -> None:
        self._inputs = tuple(tensor.clone() for tensor in example)
        self._chance = chance
        self._graphs: dict[Hashable, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def capture(self, kind: Hashable, step: Callable[[Sequence[Tensor]], Tensor]) -> None:
        """`step(inputs)` returns its loss. It is taken WARM_UP_STEPS times here."""
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_STEPS):
                step(self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._chance)
        pool = next((taken.pool() for taken, _ in self._graphs.values()), None)
        with torch.cuda.graph(graph, pool=pool):
            loss = step(self._inputs)
        self._graphs[kind] = (graph, loss)

    def takes(self, inputs: Sequence[Tensor]) -> bool:
        """Are these inputs of the captured shapes?"""
        return all(a.shape == b.shape for a, b in zip(inputs, self._inputs, strict=True))

    def replay(self, kind: Hashable, inputs: Sequence[Tensor]) -> Tensor:
        """One step on `inputs`, which may lie on the CPU; its loss."""
        for mine, theirs in zip(self._inputs, inputs, strict=True):
            mine.copy_(theirs, non_blocking=True)
        graph, loss = self._graphs[kind]
        graph.replay()
        return loss.clone()
