"""From a configuration to an optimiser and a learning-rate schedule."""

from __future__ import annotations

from minidnn import schedules
from minidnn.config import Config
from minidnn.module import Module
from minidnn.optim import SGD, Adam, AdamW, Optimizer, RMSProp, decay_groups
from minidnn.schedules import Schedule


def make_optimizer(config: Config, model: Module) -> Optimizer:
    """Return the optimiser a configuration names, on a model's parameters.

    Weight decay acts on full kernels and matrices alone, see `minidnn.optim.decay_groups`.
    """
    groups, lr = decay_groups(model, config.weight_decay), config.lr
    if config.optimizer == "sgd":
        nesterov = config.nesterov and config.momentum > 0
        return SGD(groups, lr, momentum=config.momentum, nesterov=nesterov)
    if config.optimizer == "rmsprop":
        return RMSProp(groups, lr, momentum=config.momentum)
    return {"adam": Adam, "adamw": AdamW}[config.optimizer](groups, lr)


def make_schedule(config: Config, total_steps: int, steps_per_epoch: int) -> Schedule:
    """Return the learning rate as a function of the step.

    Parameters
    ----------
    config : Config
    total_steps : int
        Of the whole run, warm-up included.
    steps_per_epoch : int
    """
    lr, final = config.lr, config.lr * config.final_lr
    warmup = min(round(config.warmup * total_steps), total_steps - 1)
    if config.schedule == "constant":
        return schedules.constant(lr, warmup_steps=warmup)
    if config.schedule == "keras_decay":
        return schedules.keras_decay(lr, decay=config.decay, warmup_steps=warmup)
    if config.schedule == "step":
        every = max(1, round(config.step_epochs * steps_per_epoch))
        return schedules.step_decay(lr, every=every, gamma=config.step_factor, warmup_steps=warmup)
    if config.schedule == "one_cycle":
        return schedules.one_cycle(lr, total_steps=total_steps, rise=config.warmup or 0.3)
    falling = {
        "cosine": schedules.cosine,
        "linear": schedules.linear,
        "polynomial": schedules.polynomial,
    }[config.schedule]
    return falling(lr, total_steps=total_steps, final=final, warmup_steps=warmup)
