"""The numbers of a refinement, and how they change while it goes: pure functions of progress, from 0 to 1."""

from dataclasses import asdict, dataclass, field, replace

from lrm4d.pretrained import DEFAULT
from lrm4d.refinement.blending import check_shares

PRIOR_END, RIGIDITY_END = 0.1, 0.1


@dataclass(frozen=True)
class Rates:
    """Learning rates of the groups at the start, in the units of what is learned; Adam moves by about so much a step.

    end: the factor that all have come down to in the end. steps, coarse_steps, turns: of the shared motion, world
    units and radians a knot.
    """

    means: float = 2e-3
    log_scales: float = 5e-3
    quaternions: float = 5e-3
    opacity_logits: float = 5e-2
    colors: float = 1e-2
    time_means: float = 0.0
    log_time_deviations: float = 0.0
    velocities: float = 0.0
    steps: float = 6e-3
    coarse_steps: float = 12e-3
    turns: float = 0.02
    exposures: float = 1e-3
    end: float = 0.1


@dataclass(frozen=True)
class Weights:
    """Of the loss's terms; the mean squared error of colours has 1. See objective.py for what each term is.

    prior: of renders of what there was before the fit, at cameras and times without a picture. It comes down to
    PRIOR_END of this, rigidity to RIGIDITY_END: a body's way is found by what is stiff, its bending by what gives.
    rigidity weighs less where the start explains the inputs well, see Refiner.
    """

    alpha: float = 0.3
    ssim: float = 0.0
    prior: float = 1.2
    rigidity: float = 0.05
    steadiness: float = 0.1
    stillness: float = 0.0
    agreement: float = 0.0
    opacity: float = 0.0
    exposure: float = 0.1


@dataclass(frozen=True)
class Density:
    """Where Gaussians are added and taken away. every: steps between; until: the progress at which it ends.

    growth: the share that is split each time, those whose places have the largest gradients, while there are fewer
    than budget. faintest: opacity below which a Gaussian goes. largest: world units that no deviation may exceed.
    """

    budget: int = 6_000
    every: int = 100
    until: float = 0.6
    growth: float = 0.1
    faintest: float = 0.005
    largest: float = 0.3


@dataclass(frozen=True)
class RefinementConfig:
    """How a scene is refined.

    corrector: weights by name or folder of the learned corrections that come first, "" for none. shares: of what the
    fits set out from and of all fits together in the scene that comes of them, see blending.py; (0, 1) leaves the
    former out. origins: one fit each, from the Gaussians that are there at this moment of the clip, in [0, 1].
    steps: of a fit, fewer where seconds end it sooner; more of them fit the few pictures better, and what no
    picture shows worse. views: pictures a step, with as many of the prior. nodes: of the shared motion, 0 for none:
    every Gaussian on its own, plain 4D Gaussian splatting. coarse_nodes: what the nodes hang on. knots: of a path.
    count, faintest: how many Gaussians of the start are carried along, and how opaque they must be.
    grow: the progress at which the pictures in use, at first those around the origin, are all. exposure: learn
    a gain of each picture's colours. half_until: the progress until which pictures of half the size serve, which are
    quicker and forgive more. tolerance: of the written motion's pieces, in pixels.
    """

    corrector: str = DEFAULT
    shares: tuple[float, float] = (0.15, 0.75)
    origins: tuple[float, ...] = (0.5, 0.25, 0.75)
    steps: int = 260
    views: int = 16
    nodes: int = 150
    coarse_nodes: int = 12
    knots: int = 24
    count: int = 4_000
    faintest: float = 0.03
    grow: float = 0.4
    half_until: float = 0.8
    exposure: bool = False
    tolerance: float = 0.3
    seed: int = 0
    rates: Rates = field(default_factory=Rates)
    weights: Weights = field(default_factory=Weights)
    density: Density = field(default_factory=Density)

    def __post_init__(self) -> None:
        for name in ("steps", "views", "knots", "count"):
            if getattr(self, name) < 1:
                raise ValueError(f"refinement: {name} {getattr(self, name)}; expected at least 1.")
        check_shares(self.shares, 2)
        if not self.origins or not all(0 <= origin <= 1 for origin in self.origins):
            raise ValueError(
                f"refinement: origins {list(self.origins)}; expected at least one, in [0, 1] of the clip."
            )
        if self.knots < 2:
            raise ValueError(f"refinement: knots {self.knots}; a path has at least 2.")


SCRATCH_STEPS = 30_000
"""Where nothing but the pictures says how things are, time is the only limit."""


def plain(config: RefinementConfig) -> RefinementConfig:
    """4D Gaussian splatting as it is known: no corrector, no shared motion, no prior, no blend; times, durations,
    velocities are learned."""
    rates = replace(config.rates, time_means=2e-3, log_time_deviations=1e-2, velocities=1e-2)
    density = replace(config.density, budget=60_000)
    return replace(
        config,
        corrector="",
        shares=(0.0, 1.0),
        origins=(0.5,),
        nodes=0,
        views=4,
        grow=0.0,
        rates=rates,
        density=density,
        weights=replace(config.weights, prior=0.0, ssim=0.02),
    )


def rates_at(rates: Rates, progress: float) -> dict[str, float]:
    """All rates at a progress: down to `end` times the start's, by the same factor in each equal part of the way."""
    factor = rates.end ** min(max(progress, 0.0), 1.0)
    return {name: value * factor for name, value in asdict(rates).items() if name != "end"}


def reach_at(grow: float, progress: float) -> float:
    """How far from a fit's origin pictures are in use, of the farthest: from 0.08 to all (1) at progress `grow`."""
    return 1.0 if grow <= 0 else 0.08 + 0.92 * min(1.0, progress / grow)


def weights_at(weights: Weights, progress: float) -> Weights:
    """Those that fade at a progress, by the same factor in each equal part of the way; the others as they are."""
    rigidity, prior = weights.rigidity * RIGIDITY_END**progress, weights.prior * PRIOR_END**progress
    return replace(weights, rigidity=rigidity, prior=prior)
