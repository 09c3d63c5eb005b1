"""What is optimized: Gaussians that move straight and for a while, or are carried along a shared motion, or both."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm4d.gaussians3d import Gaussians3D, compose_covariances, decompose_covariances
from lrm4d.gaussians4d import Gaussians4D, MovingGaussians, fade
from lrm4d.refinement.carrying import carry
from lrm4d.refinement.motion import Skeleton, build_skeleton, poses, poses_at, to_transforms
from lrm4d.rotations import quaternion_to_matrix

MOTION = ("steps", "coarse_steps", "turns")
"""What is learned of the shared motion."""
LASTING = 4.0
"""Time deviation of what exists throughout the clip, whose model time is two long."""
MIN_SCALE = 1e-4


@dataclass(frozen=True)
class Deforming:
    """Gaussians in the numbers that are learned.

    gaussians: by name and for n of them: means [n, 3] at their time means (with a skeleton: where the pose at the
    origin has them), log_scales [n, 3], quaternions [n, 4], opacity_logits [n], colors [n, 3], time_means [n],
    log_time_deviations [n], velocities [n, 3].
    motion: the steps [node, knot, 3], coarse_steps [coarse, knot, 3] and turns [node, knot, 3] of the shared motion;
    empty without.
    groups: [n], each one's neighbourhood, or None. origin: the model time at which the skeleton is at rest.
    """

    gaussians: dict[str, Tensor]
    skeleton: Skeleton | None = None
    motion: dict[str, Tensor] = field(default_factory=dict)
    groups: Int[Tensor, "n"] | None = None
    origin: float = 0.0

    def __len__(self) -> int:
        """The number of Gaussians."""
        return len(self.gaussians["means"])

    def learned(self) -> dict[str, Tensor]:
        """All tensors that are optimized, by name."""
        return {**self.gaussians, **self.motion}

    def with_learned(self, tensors: dict[str, Tensor]) -> "Deforming":
        """The same with other numbers."""
        return replace(
            self,
            gaussians={name: tensors[name] for name in self.gaussians},
            motion={name: tensors[name] for name in self.motion},
        )

    def moving(self) -> MovingGaussians:
        """Without what the shared motion adds."""
        g = self.gaussians
        return MovingGaussians(
            means=g["means"],
            velocities=g["velocities"],
            covariances=compose_covariances(g["log_scales"].exp(), g["quaternions"]),
            **self._looks(),
        )

    def _looks(self) -> dict[str, Tensor]:
        """What does not depend on where a Gaussian is, as MovingGaussians has it."""
        g = self.gaussians
        return {
            "time_means": g["time_means"],
            "time_deviations": g["log_time_deviations"].exp(),
            "opacities": torch.sigmoid(g["opacity_logits"]),
            "colors": g["colors"].clamp(min=0),
        }

    def frames(self) -> Float[Tensor, "n 3 4"]:
        """Factors of the covariances and places, as carrying.py has them."""
        g = self.gaussians
        factors = quaternion_to_matrix(g["quaternions"]) * g["log_scales"].exp()[:, None]
        return torch.cat([factors, g["means"][..., None]], dim=-1)

    def poses(self) -> Float[Tensor, "node knot 6"] | None:
        """The nodes' poses at each knot."""
        return None if self.skeleton is None else poses(self.skeleton, **self.motion, origin=self.origin)

    def transforms_at(self, times: Float[Tensor, "time"]) -> Float[Tensor, "time node 3 4"] | None:
        """What the nodes do at model times."""
        knots = self.poses()
        return None if knots is None else to_transforms(self.skeleton, poses_at(knots, times))

    def slice_at(
        self, times: Float[Tensor, "time"], transforms: Float[Tensor, "time node 3 4"] | None = None
    ) -> Gaussians3D:
        """The 3D Gaussians at model times, batch shape [time]; transforms: transforms_at of the times, if at hand."""
        transforms = self.transforms_at(times) if transforms is None else transforms
        if self.skeleton is None or transforms is None:
            return self.moving().slice_at(times)
        means, covariances = carry(transforms, self.frames(), self.skeleton.owners, self.skeleton.weights)
        looks = self._looks()
        fading = fade(times[:, None] - looks["time_means"], looks["time_deviations"])
        colors = looks["colors"].expand(len(times), -1, 3)
        return Gaussians3D(means, covariances, looks["opacities"] * fading, colors)


def start_free(scene: Gaussians4D) -> Deforming:
    """A scene's Gaussians as they are, each on its own."""
    return Deforming(_to_numbers(scene.to_moving()))


def _to_numbers(moving: MovingGaussians) -> dict[str, Tensor]:
    scales, quaternions = decompose_covariances(moving.covariances)
    gaussians = {
        "means": moving.means,
        "log_scales": scales.clamp(min=MIN_SCALE).log(),
        "quaternions": quaternions,
        "opacity_logits": torch.logit(moving.opacities.clamp(1e-4, 1 - 1e-3)),
        "colors": moving.colors,
        "time_means": moving.time_means,
        "log_time_deviations": moving.time_deviations.log(),
        "velocities": moving.velocities,
    }
    return {name: value.detach().float().clone() for name, value in gaussians.items()}


def start_shared(
    scene: Gaussians4D,
    count: int,
    nodes: tuple[int, int],
    knots: int,
    faintest: float,
    generator: torch.Generator,
    origin: float = 0.0,
) -> Deforming:
    """At most `count` of the Gaussians that a scene shows at the model time `origin`, to be carried through the clip.

    Those with less opacity than `faintest` there are left out. The motion, of `nodes` (how many, and how many coarse
    ones) with `knots` each, starts at rest.
    """
    moving = scene.to_moving()
    moment = moving.slice_at(moving.means.new_full((1,), origin))
    opacities = moment.opacities[0]
    seen = (opacities >= faintest).nonzero()[:, 0]
    if len(seen) == 0:
        raise ValueError(
            f"nothing of the {len(scene)} Gaussians is seen at the time {(origin + 1) / 2:g} of the clip, where a fit "
            "is to begin; set other origins, or refine without nodes."
        )
    kept = seen[torch.randperm(len(seen), generator=generator)[:count].to(seen.device)]
    chosen = _to_numbers(moving.select(kept))
    chosen["means"] = moment.means[0, kept]
    chosen["opacity_logits"] = torch.logit(opacities[kept].clamp(max=1 - 1e-3))
    chosen["time_means"] = torch.zeros_like(chosen["time_means"])
    chosen["log_time_deviations"] = torch.full_like(chosen["time_means"], LASTING).log()
    chosen["velocities"] = torch.zeros_like(chosen["velocities"])
    skeleton = build_skeleton(chosen["means"], *nodes, generator)
    counts = (len(skeleton.nodes), min(nodes[1], len(kept)), len(skeleton.nodes))
    motion = {name: moving.means.new_zeros(n, knots, 3) for name, n in zip(MOTION, counts, strict=True)}
    return Deforming(chosen, skeleton, motion, origin=origin)
