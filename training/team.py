"""Several GPUs of one host that train one model: each with a batch of its own, all with the same update.

`python -m torch.distributed.run --nproc-per-node 2 -m training FOLDER` starts one process a GPU. The first
one decides, writes and logs; a process that was started alone is a team of one.
"""

import os

import torch
from torch import Tensor, distributed


class Team:
    """This process among the others."""

    def __init__(self, device: str) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = device
        if self.size > 1:
            if device == "cuda":
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            distributed.init_process_group("cuda:nccl,cpu:gloo" if device == "cuda" else "gloo")

    @property
    def leads(self) -> bool:
        """Does this process decide, write and log?"""
        return self.rank == 0

    def average(self, tensor: Tensor) -> None:
        """In place, over all processes; the result is the same to the bit in each."""
        if self.size > 1:
            distributed.all_reduce(tensor)
            tensor.div_(self.size)

    def agree(self, number: float) -> float:
        """The first process's number. Waits for it, but not for a GPU."""
        if self.size == 1:
            return number
        told = torch.tensor([number], dtype=torch.float64)
        distributed.broadcast(told, 0)
        return float(told.item())

    def wait(self) -> None:
        """Until every process has come here."""
        self.agree(0.0)

    def leave(self) -> None:
        """The work is done."""
        if self.size > 1:
            distributed.destroy_process_group()
