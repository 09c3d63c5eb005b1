"""What a training run is."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from data_tools.world import WorldConfig
from lrm4d.config import make_config
from lrm4d.pretrained import DEFAULT
from lrm4d.reconstruction import CONFIGS, ModelConfig
from lrm4d.refinement.corrector import CorrectorConfig

NORM_WINDOW = 100
"""How many norms of gradients back a run remembers; it judges none before a fifth of that."""


@dataclass
class LossWeights:
    """Weights of the terms of the loss; depth, match and flow are the world's exact geometry and fade out.

    psnr is in bels, one picture counting as much as the other, where color (MSE) looks at the hard scenes.
    """

    color: float = 4.0
    psnr: float = 0.0
    alpha: float = 2.0
    ssim: float = 0.2
    depth: float = 1.0
    match: float = 0.1
    flow: float = 0.1


@dataclass
class Stage:
    """Pictures of `size` pixels until this fraction of the run's steps.

    world: changes to the world's WorldConfig, for example {static: 1.0} for a start with things that do not move.
    views_per_step: in place of the run's, where it is not 0: large pictures fill a device with fewer scenes.
    """

    until: float = 1.0
    size: int = 128
    world: dict[str, Any] = field(default_factory=dict)
    views_per_step: int = 0


@dataclass
class RunConfig:
    """What every run has, whatever is trained.

    stages: sizes of pictures and worlds, see Stage. The learning rate warms up, stays at `learning_rate` and decays
    linearly to zero over the last `decay` of the steps. accumulate: batches whose gradients make one step. ema: the
    weights that are saved are an average over the steps that keeps this share of itself each step, 0 for the last
    weights themselves. A step whose gradient is not finite, or longer than skip_above (0: never) times the median of
    the last NORM_WINDOW, changes nothing. checkpoint_activations: keep only what goes into each block of the
    transformer and compute the rest again. workers: processes of each rank that make batches. log_to: tensorboard,
    wandb, besides log.jsonl. start_from: weights to begin with, a name or a folder. deepspeed: merged into its
    configuration, for example {zero_optimization: {stage: 2}}.
    """

    seed: int = 0
    steps: int = 20000
    stages: list[Stage] = field(default_factory=lambda: [Stage()])
    views_per_step: int = 48
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    warmup: int = 500
    decay: float = 0.3
    weight_decay: float = 0.05
    clip: float = 1.0
    accumulate: int = 1
    ema: float = 0.0
    skip_above: float = 10.0
    checkpoint_activations: bool = False
    bf16: bool = True
    workers: int = 1
    threads: int = 1
    checkpoint_minutes: float = 5.0
    log_every: int = 20
    sample_every: int = 250
    log_to: list[str] = field(default_factory=list)
    start_from: str | None = None
    deepspeed: dict[str, Any] = field(default_factory=dict)

    def stage_at(self, step: int) -> Stage:
        """The stage that a step lies in."""
        for stage in self.stages:
            if step < stage.until * self.steps:
                return stage
        return self.stages[-1]

    def size_at(self, step: int) -> int:
        """The picture size at a step."""
        return self.stage_at(step).size

    def views_at(self, step: int) -> int:
        """Context views of a step, all scenes together."""
        return self.stage_at(step).views_per_step or self.views_per_step

    def world_at(self, step: int) -> WorldConfig:
        """What the world is made of at a step; ValueError for a key that WorldConfig does not have."""
        return make_config(WorldConfig, self.stage_at(step).world)


@dataclass
class ScenesConfig(RunConfig):
    """A run on scenes of the world or of shards.

    A step has `few_views` context views (a range, drawn evenly) with probability few_chance, else `many_views`,
    because a network trained on one number stops improving at others; its scenes are views_per_step // views, at most
    max_scenes. fixed_scenes: how many scenes there are in all, 0 for no end. shards: tar shards to train on instead of
    the world, a folder or a pattern with braces or stars (lrm4d.shards).
    """

    few_views: tuple[int, int] = (1, 6)
    few_chance: float = 0.2
    many_views: tuple[int, int] = (12, 24)
    max_scenes: int = 8
    target_views: int = 8
    fixed_scenes: int = 0
    shards: str | None = None


@dataclass
class TrainConfig(ScenesConfig):
    """A run of train.reconstruction.

    model: a named size, changed by model_overrides (ModelConfig). geometry_fade: fraction of the steps over which the
    weights of the direct losses fall to a tenth.
    """

    model: str = "nano"
    model_overrides: dict[str, Any] = field(default_factory=dict)
    loss: LossWeights = field(default_factory=LossWeights)
    geometry_fade: float = 2.0

    def model_config(self) -> ModelConfig:
        """The network's configuration, or a ValueError that lists the names."""
        if self.model not in CONFIGS:
            raise ValueError(f"model {self.model!r} is not one of {', '.join(CONFIGS)}.")
        return make_config(ModelConfig, asdict(CONFIGS[self.model]), self.model_overrides)


@dataclass
class CorrectorRun(ScenesConfig):
    """A run of train.corrector. network: whose scenes are corrected, weights by name or folder. corrector: changes to
    CorrectorConfig. alpha: the weight of alphas' squared errors, beside PSNR in bels."""

    network: str = DEFAULT
    corrector: dict[str, Any] = field(default_factory=dict)
    alpha: float = 0.5

    def corrector_config(self) -> CorrectorConfig:
        """The corrector's configuration."""
        return make_config(CorrectorConfig, self.corrector)


def learning_rate_at(config: RunConfig, step: int) -> float:
    """Warm-up, plateau, linear decay to zero."""
    rising = (step + 1) / max(config.warmup, 1)
    falling = (config.steps - step) / max(config.decay * config.steps, 1)
    return config.learning_rate * max(0.0, min(1.0, rising, falling))


def geometry_weight_at(config: TrainConfig, step: int) -> float:
    """The factor on the direct losses: from 1 to 0.1 along a line."""
    return 1 - 0.9 * min(1.0, step / max(config.geometry_fade * config.steps, 1))


def ema_decay_at(config: RunConfig, step: int) -> float:
    """How much of the averaged weights a step keeps: little at first, so that the start is soon forgotten."""
    return min(config.ema, (1 + step) / (10 + step))


def norm_limit(config: RunConfig, norms: Sequence[float]) -> float:
    """The longest gradient that a step applies, given the norms before it.

    Those of skipped steps count too: where gradients have grown for good, the median follows.
    """
    recent = norms[-NORM_WINDOW:]
    if not config.skip_above or len(recent) < NORM_WINDOW // 5:
        return math.inf
    return config.skip_above * median(recent)
