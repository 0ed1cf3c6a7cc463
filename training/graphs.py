"""A whole training step as one CUDA graph: the many small kernels of a small model start without waiting for Python.

A step is captured once for each of its kinds and replayed on inputs copied into the same memory.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

WARM_UP_STEPS = 3  # before the capture: they compile, and make what a captured step may not make


class StepGraphs:
    """Steps of one shape. `chance` is the generator that they draw from; None: torch's own."""

    def __init__(self, example: Sequence[Tensor], chance: torch.Generator | None) -> None:
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
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        if self._chance is not None:
            graph.register_generator_state(self._chance)
        pool = next((taken.pool() for taken, _ in self._graphs.values()), None)
        # thread_local: the threads that watch over the processes' messages may go on asking the GPU
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            loss = step(self._inputs)
        self._graphs[kind] = (graph, loss)

    def takes(self, kind: Hashable, inputs: Sequence[Tensor]) -> bool:
        """Is this a captured kind of step, and are these inputs of the captured shapes?"""
        return kind in self._graphs and all(a.shape == b.shape for a, b in zip(inputs, self._inputs, strict=True))

    def replay(self, kind: Hashable, inputs: Sequence[Tensor] = ()) -> Tensor:
        """One step on `inputs`, which may lie on the CPU (none: on the last ones); its loss."""
        for mine, theirs in zip(self._inputs, inputs, strict=False):
            mine.copy_(theirs, non_blocking=True)
        graph, loss = self._graphs[kind]
        graph.replay()
        return loss.clone()
