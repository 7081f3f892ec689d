"""Collective operations over the processes that train together, or over one process without ``torch.distributed``."""

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Workers:
    """The process group of this process: ``count`` processes, of which it has the ``rank``, from 0."""

    def __init__(self, device: torch.device):
        self._device = device
        self.count = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self._parallel: tuple[int, nn.Module] | None = None

    def parallel(self, model: nn.Module, trained_stages: int) -> nn.Module:
        """Return a network whose gradients are averaged over all workers; with one worker the network itself.

        The network is wrapped anew only when other stages train than in the last call.
        """
        if self.count == 1:
            return model
        if self._parallel is None or self._parallel[0] != trained_stages:
            # Buffers are averaged once an epoch, by average_buffers.
            wrapped = DistributedDataParallel(model, forward_sync_buffers=False, batched_grad_copy=True)
            self._parallel = trained_stages, wrapped
        return self._parallel[1]

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of an array over all workers."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, device=self._device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the rows of all workers, n × columns, in the order of ranks, as one float64 array on every worker."""
        counts = self.sum(np.eye(self.count, dtype=np.int64)[self.rank] * len(rows))
        start = counts[: self.rank].sum()
        table = np.zeros((counts.sum(), rows.shape[1]))
        table[start : start + len(rows)] = rows
        return self.sum(table)

    def average_buffers(self, model: nn.Module) -> None:
        """Replace batch-norm statistics by their mean over all workers."""
        for buffer in model.buffers() if self.count > 1 else ():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.count
