"""Optimizers over the stages of a network."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from fer_ray.config.schema import OptimizerConfig


def make_optimizer(stages: Sequence[nn.Module], config: OptimizerConfig) -> "torch.optim.Optimizer | Muon":
    """Make the configured optimizer.

    Weight decay applies to weight matrices and kernels, not to biases and norms. Each parameter group has a ``scale``
    by which the learning rate is to be multiplied: ``layer_decay`` to the power of the number of stages between the
    group and the output (Clark et al., arXiv 2003.10555, and BEiT, arXiv 2106.08254).

    Args:
        stages: the parts of the network from input to output. Each parameter is in exactly one of them.
        config: the optimizer configuration.
    """
    groups = list(_groups(stages, config))
    rate, momentum = config.learning_rate, config.momentum
    if config.name == "muon":
        return Muon(groups, rate, momentum)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, fused=True)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=rate, betas=(momentum, 0.999), fused=True)


def _groups(stages: Sequence[nn.Module], config: OptimizerConfig) -> Iterator[dict[str, Any]]:
    """Yield one or two parameter groups per stage: with and without weight decay.

    A group belongs to one stage because stages are unfrozen one by one, and fused SGD refuses a group in which only
    some parameters have a momentum buffer.
    """
    for number, stage in enumerate(stages):
        scale = config.layer_decay ** (len(stages) - 1 - number)
        matrices = [parameter for parameter in stage.parameters() if parameter.ndim > 1]
        vectors = [parameter for parameter in stage.parameters() if parameter.ndim <= 1]
        for params, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if params:
                yield {"params": params, "weight_decay": decay, "scale": scale}


class Muon:
    """torch's Muon (Jordan et al. 2024) for matrices and kernels, and AdamW for biases and norms, at one learning rate.

    A kernel, outputs × inputs × height × width, counts as a matrix with a row an output, of which torch's Muon takes
    only the two-dimensional kind; so it is given views that share the kernels' memory. Its steps are scaled to the
    size of AdamW's, so that the same rate suits both (Liu et al., arXiv 2502.16982, section 2.2).

    Has the part of ``torch.optim.Optimizer`` that training uses.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], learning_rate: float, momentum: float):
        self._views: list[_MatrixView] = []
        of_matrices, of_vectors = [], []
        for group in groups:
            if group["params"][0].ndim > 1:
                views = [_MatrixView(kernel) for kernel in group["params"]]
                self._views += views
                of_matrices.append(group | {"params": [view.matrix for view in views]})
            else:
                of_vectors.append(group)
        self._matrices = torch.optim.Muon(
            of_matrices, lr=learning_rate, momentum=momentum, adjust_lr_fn="match_rms_adamw"
        )
        self._vectors = torch.optim.AdamW(of_vectors, lr=learning_rate, betas=(0.9, 0.999), fused=True)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both."""
        return [*self._matrices.param_groups, *self._vectors.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for view in self._views:
            view.kernel.grad = None
        self._vectors.zero_grad(set_to_none)

    def step(self) -> None:
        """Take one step along the gradients; parameters without one stay."""
        for view in self._views:
            view.take_gradient()
        self._matrices.step()  # type: ignore[no-untyped-call]
        self._vectors.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {"matrices": self._matrices.state_dict(), "vectors": self._vectors.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._matrices.load_state_dict(state["matrices"])
        self._vectors.load_state_dict(state["vectors"])


class _MatrixView:
    """A kernel and the matrix over the same memory; the order of a row's numbers follows the kernel's layout."""

    def __init__(self, kernel: nn.Parameter):
        self.kernel = kernel
        self._by_channel = kernel.ndim == 4 and not kernel.is_contiguous()
        self.matrix = nn.Parameter(self._rows(kernel.detach()).view(len(kernel), -1))

    def take_gradient(self) -> None:
        """Give the matrix the kernel's gradient."""
        gradient = self.kernel.grad
        self.matrix.grad = None if gradient is None else self._rows(gradient).reshape(len(gradient), -1)

    def _rows(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.permute(0, 2, 3, 1) if self._by_channel else tensor
