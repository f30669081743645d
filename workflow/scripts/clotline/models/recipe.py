"""The optimizer and the learning rate's schedule that a recipe names."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
)

from clotline.sections.recipe import Recipe


def make_optimizer(recipe: Recipe, model: nn.Module) -> Optimizer:
    """SGD, or AdamW (Loshchilov and Hutter, ICLR 2019), on all of the model's parameters.

    AdamW decays matrices and filters alone: biases and the weights of normalisation, one number
    per channel, have no scale that could grow without effect.
    """
    parameters = list(model.parameters())
    if recipe.optimizer == "sgd":
        return SGD(
            parameters, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, recipe.lr, betas=(recipe.momentum, 0.999))


def make_scheduler(recipe: Recipe, optimizer: Optimizer, steps_per_epoch: int) -> LRScheduler:
    """The learning rate's schedule, stepped after every step of the optimizer."""
    # With no epochs it is never stepped, but it cannot be made for no steps.
    total = max(recipe.epochs * steps_per_epoch, 1)
    if recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=total)
    if recipe.schedule == "linear":
        return LinearLR(optimizer, start_factor=1.0, end_factor=0.0, total_iters=total)
    if recipe.schedule == "one_cycle":
        return OneCycleLR(
            optimizer,
            recipe.lr,
            total_steps=total,
            pct_start=recipe.warm_up,
            cycle_momentum=False,
        )
    if recipe.schedule == "step":
        milestones = [epoch * steps_per_epoch for epoch in recipe.milestones]
        return MultiStepLR(optimizer, milestones, gamma=0.1)
    return ConstantLR(optimizer, factor=1)
