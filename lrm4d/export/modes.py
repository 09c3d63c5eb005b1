"""Pictures of a 4D scene in modes: colour, alpha, depth, velocity, and time of birth.

Every mode is drawn by the one rasterizer. Velocity and birth are the same Gaussians with other colours, so where
several overlap the picture shows their mean, weighted as their colours would be.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.export.color_map import apply_color_map
from lrm4d.gaussians3d import Gaussians3D
from lrm4d.gaussians4d import Gaussians4D, to_model_time
from lrm4d.rasterizer import Rendering, rasterize
from lrm4d.rasterizer.rendering import MIN_ALPHA, NEAR

MODES = ("colour", "alpha", "depth", "velocity", "birth")
MOST = 0.99
"""The velocity that gets a full colour, and the radius that depths span, hold for this part of the opacity."""


class ModeRenderer:
    """One scene, ready to be drawn in every mode.

    fastest: world units a clip; radius: world units around the world's origin. 99 % of the opacity is slower, nearer.
    """

    def __init__(self, gaussians: Gaussians4D):
        self.moving = gaussians.to_moving()
        self.low_pass, self.compensate = gaussians.low_pass, gaussians.compensate
        velocities = 2 * self.moving.velocities  # the clip is two units of model time long
        self.fastest = weighted_quantile(velocities.norm(dim=-1), self.moving.opacities)
        self.radius = weighted_quantile(self.moving.means.norm(dim=-1), self.moving.opacities)
        self._colors = {
            "velocity": color_velocities(velocities, self.fastest),
            "birth": apply_color_map((self.moving.time_means + 1) / 2),
        }

    def legend(self, mode: str, cameras: Cameras) -> str:
        """What the colours of a mode mean, with their range."""
        near, far = self.depth_span(cameras)
        return {
            "colour": "the scene's own colours",
            "alpha": "black 0, white 1",
            "depth": f"camera z: light {near:.2f}, dark {far:.2f} world units",
            "velocity": f"gray is still; red, green, blue +x, +y, +z; full at {self.fastest:.3g} world units a clip",
            "birth": "when each Gaussian is most opaque: dark 0, light 1",
        }[mode]

    def depth_span(self, cameras: Cameras) -> tuple[float, float]:
        """The nearest and the farthest depth that the scene can have before any of the cameras."""
        distances = cameras.origins.norm(dim=-1)
        return max(NEAR, distances.min().item() - self.radius), distances.max().item() + self.radius

    def slice_at(self, times: Float[Tensor, "view"], mode: str = "colour") -> Gaussians3D:
        """The Gaussians at times in [0, 1], batch shape [view], in a mode's colours."""
        check_mode(mode)
        sliced = self.moving.slice_at(to_model_time(times))
        colors = self._colors[mode].expand_as(sliced.colors) if mode in self._colors else sliced.colors
        return Gaussians3D(sliced.means, sliced.covariances, sliced.opacities, colors)

    def render(
        self,
        cameras: Cameras,
        times: Float[Tensor, "view"],
        mode: str = "colour",
        background: Float[Tensor, "3"] | None = None,
        span: tuple[float, float] | None = None,
    ) -> Rendering:
        """Pictures from cameras [view] at times in [0, 1] in a mode; alpha and depth are the rasterizer's own.

        background: RGB, white unless given; alpha is drawn without. span: the depths of the lightest and the darkest
        colour (world units), depth_span of these cameras unless given.
        """
        device = self.moving.means.device
        background = torch.ones(3) if background is None else background
        cameras, background = cameras.to(self.moving.means), background.to(self.moving.means)
        views = cameras.reshape(len(cameras), 1)
        drawn = rasterize(self.slice_at(times.to(device), mode), views, background, self.low_pass, self.compensate)
        image, alpha, depth = drawn.image[:, 0], drawn.alpha[:, 0], drawn.depth[:, 0]
        if mode == "alpha":
            image = alpha.expand_as(image)
        if mode == "depth":
            near, far = span or self.depth_span(cameras)
            colors = apply_color_map((far - depth[:, 0]) / max(far - near, 1e-6)).movedim(-1, 1)
            image = alpha * colors + (1 - alpha) * background[:, None, None]
        return Rendering(image, alpha, depth)

    def render_frames(
        self,
        cameras: Cameras,
        times: Float[Tensor, "view"],
        mode: str = "colour",
        background: Float[Tensor, "3"] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Iterator[Rendering]:
        """The same, one picture [1, ...] after the other, with one depth span for all; any number of them."""
        span = self.depth_span(cameras)
        for index in range(len(times)):
            part = slice(index, index + 1)
            with torch.no_grad():
                yield self.render(cameras[part], times[part], mode, background, span)
            if progress:
                progress("render", index + 1, len(times))

    def count_shown(self, time: float) -> int:
        """How many Gaussians are opaque enough at a time in [0, 1] for the rasterizer to draw."""
        return int((self.slice_at(self.moving.means.new_tensor([time])).opacities >= MIN_ALPHA).sum())


def check_mode(mode: str) -> None:
    """Raises ValueError for a mode that there is not."""
    if mode not in MODES:
        raise ValueError(f"mode '{mode}': there is no such mode; expected one of {', '.join(MODES)}.")


def color_velocities(velocities: Float[Tensor, "*batch 3"], fastest: float) -> Float[Tensor, "*batch 3"]:
    """RGB 0.5 + 0.5 v / fastest, clamped: gray is still, red moves along +x, cyan along -x, and so on."""
    return (0.5 + 0.5 * velocities / max(fastest, 1e-6)).clamp(0, 1)


def weighted_quantile(values: Float[Tensor, " n"], weights: Float[Tensor, " n"], part: float = MOST) -> float:
    """The smallest of the values that a part of the weight does not exceed; 0 of no values."""
    if not len(values):
        return 0.0
    ordered, order = values.double().sort()
    reached = weights.double()[order].cumsum(0)
    place = int(torch.searchsorted(reached, part * reached[-1]))
    return ordered[min(place, len(ordered) - 1)].item()
