"""How networks are trained: what the configuration says of SGD and its learning rate."""

from dataclasses import dataclass

from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, MultiStepLR, OneCycleLR


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the keys of a ``cnn`` or ``lstm`` entry of the configuration."""

    epochs: int
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    milestones: list[int]
    clip_norm: float | None
    precision: str

    @classmethod
    def of(cls, section: dict) -> "Recipe":
        """The recipe in one entry of the configuration."""
        return cls(**{name: section[name] for name in cls.__dataclass_fields__})

    def optimizer(self, model: nn.Module) -> SGD:
        """SGD on all of the model's parameters."""
        return SGD(
            model.parameters(), self.lr, momentum=self.momentum, weight_decay=self.weight_decay
        )

    def scheduler(self, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
        """The learning rate's course, stepped after every batch."""
        if self.schedule == "one_cycle":
            total = self.epochs * steps_per_epoch
            return OneCycleLR(optimizer, self.lr, total_steps=total, cycle_momentum=False)
        if self.schedule == "step":
            milestones = [epoch * steps_per_epoch for epoch in self.milestones]
            return MultiStepLR(optimizer, milestones, gamma=0.1)
        return ConstantLR(optimizer, factor=1)
