"""One fit in the making: what is learned, its optimizer, and their file."""

from collections.abc import Callable
from dataclasses import asdict, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.gaussians3d import Gaussians3D
from lrm4d.gaussians4d import Gaussians4D, to_model_time
from lrm4d.rasterizer import rasterize
from lrm4d.refinement.baking import bake
from lrm4d.refinement.config import RefinementConfig
from lrm4d.refinement.deforming import Deforming, start_free, start_shared
from lrm4d.refinement.density import densify_and_prune
from lrm4d.refinement.motion import Skeleton, spread_nodes
from lrm4d.refinement.moving import from_moving
from lrm4d.refinement.objective import Pictures
from lrm4d.refinement.optimizer import Adam

Drawn = tuple[Pictures, Float[Tensor, "time node 3 4"] | None]
Render = Callable[[Cameras, Float[Tensor, "view"]], Float[Tensor, "view 3 height width"]]
"""Pictures on white from cameras [view] at times [view] in [0, 1] of the clip, with a gradient."""
PARTS = ("value", "first", "second", "count")
"""Of each learned tensor in a fit's file."""
GROUPS = 500
"""Neighbourhoods of Gaussians that move on their own."""


class Fit:
    """Deforming Gaussians, exposures of `views` pictures, Adam's moments and the sums of gradients that densify."""

    def __init__(self, start: Gaussians4D, views: int, config: RefinementConfig, member: int = 0):
        """member: which of the config's fits."""
        self.config = config
        self.low_pass, self.compensate = start.low_pass, start.compensate
        generator = torch.Generator().manual_seed(config.seed + member)
        if config.nodes:
            nodes = (config.nodes, config.coarse_nodes)
            origin = to_model_time(torch.tensor(config.origins[member])).item()
            shared = (config.count, nodes, config.knots, config.faintest, generator, origin)
            self.deforming = start_shared(start, *shared)
        else:
            self.deforming = start_free(start)
            if config.weights.agreement:
                self.deforming = group_neighbors(self.deforming, generator)
        learned = dict(self.deforming.learned())
        if config.exposure:
            learned["exposures"] = start.means.new_zeros(views, 3)
        self._own(learned)

    def _own(self, learned: dict[str, Tensor]) -> None:
        rates = asdict(self.config.rates)
        for name, value in learned.items():
            value.requires_grad_(rates[name] > 0)
        self.adam = Adam(learned)
        self.deforming = self.deforming.with_learned(learned)
        self.gradients = learned["means"].new_zeros(len(self.deforming))

    def draw(self, cameras: Cameras, times: Float[Tensor, "moment"]) -> Drawn:
        """Pictures on black from cameras [moment, look] at times in [0, 1], and what the nodes do then."""
        moments = to_model_time(times)
        transforms = self.deforming.transforms_at(moments)
        slices = self.deforming.slice_at(moments, transforms)
        return draw_slices(slices, cameras, self.low_pass, self.compensate), transforms

    def render(self, cameras: Cameras, times: Float[Tensor, "view"]) -> Float[Tensor, "view 3 height width"]:
        """See Render."""
        drawn, _ = self.draw(cameras.reshape(-1, 1), times)
        return drawn.on(drawn.colors.new_ones(3))[:, 0]

    def step(self, rates: dict[str, float]) -> None:
        """Follow the gradients."""
        gradient = self.adam.parameters["means"].grad
        if gradient is not None:
            self.gradients += gradient.norm(dim=-1)
        self.adam.step(rates)

    def densify(self) -> None:
        """See density.py."""
        self.deforming = densify_and_prune(self.deforming, self.adam, self.gradients, self.config.density)
        self.gradients = self.gradients.new_zeros(len(self.deforming))

    def scene(self, tolerance: float) -> Gaussians4D:
        """The scene as it is now; tolerance in world units, see baking.py. Without what is never seen."""
        with torch.no_grad():
            return from_moving(bake(self.deforming, tolerance).visible(), self.low_pass, self.compensate)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a fit is, copied; names have slashes."""
        tensors = {"gradients": self.gradients}
        for name, value in self.adam.parameters.items():
            moments = self.adam.first[name], self.adam.second[name]
            count = torch.tensor(self.adam.counts[name])
            tensors |= {f"{name}/{part}": x for part, x in zip(PARTS, (value, *moments, count), strict=True)}
        if self.deforming.skeleton is not None:
            tensors |= {f"skeleton/{name}": value for name, value in vars(self.deforming.skeleton).items()}
        if self.deforming.groups is not None:
            tensors["groups"] = self.deforming.groups
        return {name: value.detach().clone() for name, value in tensors.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Become the fit whose tensors these are."""
        device = self.gradients.device
        tensors = {name: value.to(device).clone() for name, value in tensors.items()}
        skeleton, groups = self.deforming.skeleton, tensors.get("groups")
        if skeleton is not None:
            skeleton = Skeleton(**{name: tensors[f"skeleton/{name}"] for name in vars(skeleton)})
        self.deforming = replace(self.deforming, skeleton=skeleton, groups=groups)
        names = list(self.adam.parameters)
        self._own({name: tensors[f"{name}/value"] for name in names})
        for name in names:
            self.adam.first[name], self.adam.second[name] = tensors[f"{name}/first"], tensors[f"{name}/second"]
            self.adam.counts[name] = int(tensors[f"{name}/count"])
        self.gradients = tensors["gradients"]


def draw_slices(gaussians: Gaussians3D, cameras: Cameras, low_pass: float, compensate: bool) -> Pictures:
    """Pictures on black [moment, look] of slices [moment] from cameras [moment, look]."""
    drawn = rasterize(gaussians, cameras, gaussians.means.new_zeros(3), low_pass, compensate)
    return Pictures(drawn.image, drawn.alpha, torch.ones_like(drawn.alpha))


def group_neighbors(deforming: Deforming, generator: torch.Generator) -> Deforming:
    """With neighbourhoods in space and time, for objective.agreement_loss."""
    gaussians = deforming.gaussians
    places = torch.cat([gaussians["means"], gaussians["time_means"][:, None]], dim=1)
    return replace(deforming, groups=torch.cdist(places, spread_nodes(places, GROUPS, generator)).argmin(dim=1))
