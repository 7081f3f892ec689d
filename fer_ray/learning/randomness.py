"""What is random in training."""

import numpy as np
import torch


class EpochRandom:
    """The randomness of an epoch, decided by the seed, the epoch and the rank alone, so that a run can go on anywhere.

    Attributes:
        generator: on the device, of the order and the augmentation.
        random: of what numpy draws.
    """

    def __init__(self, seed: int, epoch: int, rank: int, device: torch.device):
        own = int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])
        torch.manual_seed(own)  # dropout
        self.generator = torch.Generator(device).manual_seed(own)
        self.random = np.random.default_rng(own)
