"""How networks are trained: what the configuration says of the optimizer and its learning rate."""

from dataclasses import dataclass

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, MultiStepLR, OneCycleLR


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the keys of a ``cnn`` or ``lstm`` entry of the configuration."""

    epochs: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    warm_up: float
    milestones: list[int]
    clip_norm: float | None
    precision: str
    keep: str

    @classmethod
    def of(cls, section: dict) -> "Recipe":
        """The recipe in one entry of the configuration."""
        return cls(**{name: section[name] for name in cls.__dataclass_fields__})

    def make_optimizer(self, model: nn.Module) -> Optimizer:
        """SGD, or AdamW (Loshchilov and Hutter, ICLR 2019), on all of the model's parameters.

        AdamW decays matrices and filters alone: biases and the weights of normalisation, one
        number per channel, have no scale that could grow without effect.
        """
        parameters = list(model.parameters())
        if self.optimizer == "sgd":
            return SGD(parameters, self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return AdamW(groups, self.lr, betas=(self.momentum, 0.999))

    def scheduler(self, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
        """The learning rate's schedule, stepped after every batch."""
        if self.schedule == "one_cycle":
            # With no epochs it is never stepped, but it cannot be made for no steps.
            total = max(self.epochs * steps_per_epoch, 1)
            return OneCycleLR(
                optimizer,
                self.lr,
                total_steps=total,
                pct_start=self.warm_up,
                cycle_momentum=False,
            )
        if self.schedule == "step":
            milestones = [epoch * steps_per_epoch for epoch in self.milestones]
            return MultiStepLR(optimizer, milestones, gamma=0.1)
        return ConstantLR(optimizer, factor=1)
