"""4D Gaussians: a scene over space and time, its slice at any time, its rendering and its file."""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras
from lrm4d.checkpoint import read_safetensors, write_safetensors
from lrm4d.gaussians3d import Gaussians3D, pack_square
from lrm4d.rasterizer import Rendering, rasterize
from lrm4d.rasterizer.rendering import MIN_ALPHA
from lrm4d.rotations import quaternion_pair_to_so4

FORMAT = "lrm4d.gaussians4d"


def to_model_time(times: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Times in [0, 1] over the clip (what users give) as times in [-1, 1] (what the model and Gaussians4D use)."""
    return 2 * times - 1


def fade(elapsed: Float[Tensor, "*batch"], deviations: Float[Tensor, "*#batch"]) -> Float[Tensor, "*batch"]:
    """What is left of an opacity at model times `elapsed` after the time means."""
    return torch.exp(-0.5 * (elapsed / deviations).square())


@dataclass(frozen=True)
class MovingGaussians:
    """4D Gaussians as 3D ones that each move in a straight line and fade in and out: what a slice is computed from.

    means: [*batch, n, 3] at the time means. velocities: [*batch, n, 3] per unit of model time. covariances:
    [*batch, n, 6] packed, the same at every time. time_means, time_deviations, opacities: [*batch, n].
    colors: [*batch, n, 3].
    """

    means: Float[Tensor, "*batch n 3"]
    velocities: Float[Tensor, "*batch n 3"]
    covariances: Float[Tensor, "*batch n 6"]
    time_means: Float[Tensor, "*batch n"]
    time_deviations: Float[Tensor, "*batch n"]
    opacities: Float[Tensor, "*batch n"]
    colors: Float[Tensor, "*batch n 3"]

    def slice_at(self, times: Float[Tensor, "*batch time"]) -> Gaussians3D:
        """The 3D Gaussians at model times in [-1, 1]; batch shape [*batch, time].

        opacity(t) = opacity exp(-(t - mu_t)^2 / (2 sigma_t^2)); mean(t) = mu + velocity (t - mu_t)
        (4D-LRM, arXiv 2506.18890, conditional Gaussian). Covariances and colours are expanded, not copied.
        """
        times = times.to(self.means)
        elapsed = times[..., :, None] - self.time_means[..., None, :]
        shape = elapsed.shape
        fading = fade(elapsed, self.time_deviations[..., None, :])
        return Gaussians3D(
            means=self.means[..., None, :, :] + self.velocities[..., None, :, :] * elapsed[..., None],
            covariances=self.covariances[..., None, :, :].expand(*shape, 6),
            opacities=self.opacities[..., None, :] * fading,
            colors=self.colors[..., None, :, :].expand(*shape, 3),
        )

    def visible(self) -> "MovingGaussians":
        """Those of one scene that a rasterizer draws at some time of the clip: finite, opacity of 1/255 reached."""
        elapsed = self.time_means.clamp(-1, 1) - self.time_means
        peaks = self.opacities * fade(elapsed, self.time_deviations)
        values = vars(self)
        finite = torch.cat([value.reshape(len(peaks), -1) for value in values.values()], dim=-1).isfinite().all(-1)
        return self.select(finite & (peaks >= MIN_ALPHA))

    def select(self, index: Tensor) -> "MovingGaussians":
        """Those of one scene that a mask or indices choose."""
        return MovingGaussians(**{name: value[index] for name, value in vars(self).items()})

    def visible_at(self, time: float) -> Gaussians3D:
        """Those of one scene that a rasterizer draws at a time in [0, 1] of the clip, there; batch shape []."""
        sliced = self.visible().slice_at(to_model_time(self.means.new_tensor([time])))
        moment = Gaussians3D(*(value[0] for value in vars(sliced).values()))
        return moment.select(moment.opacities >= MIN_ALPHA)


@dataclass(frozen=True)
class Gaussians4D:
    """4D Gaussians in the parameters that are learned. Space in world units, time on the model's axis [-1, 1].

    means: [*batch, n, 3]. time_means: [*batch, n]. scales: [*batch, n, 3] and time_scales: [*batch, n], standard
    deviations along the rotated axes. left_quaternions, right_quaternions: [*batch, n, 4], any length but zero.
    opacities: [*batch, n] in [0, 1]. colors: [*batch, n, 3] RGB, from 0.
    low_pass: variance (pixels squared) that rendering adds to every footprint; compensate: whether opacity makes up
    for it. Both belong to the scene, because it was fitted with them.
    """

    means: Float[Tensor, "*batch n 3"]
    time_means: Float[Tensor, "*batch n"]
    scales: Float[Tensor, "*batch n 3"]
    time_scales: Float[Tensor, "*batch n"]
    left_quaternions: Float[Tensor, "*batch n 4"]
    right_quaternions: Float[Tensor, "*batch n 4"]
    opacities: Float[Tensor, "*batch n"]
    colors: Float[Tensor, "*batch n 3"]
    low_pass: float = 0.3
    compensate: bool = False

    def __len__(self) -> int:
        """The number of Gaussians (of one scene)."""
        return self.means.shape[-2]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, in the order of the fields."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def __getitem__(self, index) -> "Gaussians4D":
        """Scenes chosen along the batch dimensions."""
        return replace(self, **{name: value[index] for name, value in self.tensors().items()})

    def select(self, keep: Tensor) -> "Gaussians4D":
        """The Gaussians of one scene chosen by a mask or by indices."""
        return self[keep]

    def to(self, *args, **kwargs) -> "Gaussians4D":
        """Moved to a device or dtype, as Tensor.to."""
        return replace(self, **{name: value.to(*args, **kwargs) for name, value in self.tensors().items()})

    def space_time_covariances(self) -> Float[Tensor, "*batch n 4 4"]:
        """Sigma = R S S^T R^T over (x, y, z, t), R the pair of quaternions' rotation."""
        factor = self._factors()
        return factor @ factor.mT

    def _factors(self) -> Float[Tensor, "*batch n 4 4"]:
        rotations = quaternion_pair_to_so4(self.left_quaternions, self.right_quaternions)
        scales = torch.cat([self.scales, self.time_scales[..., None]], dim=-1)
        return rotations * scales[..., None, :]

    def to_moving(self) -> MovingGaussians:
        """The form that slices are cheap in; compute it once for many slices."""
        factors = self._factors()
        space, time = factors[..., :3, :], factors[..., 3:, :]
        time_variances = time.square().sum(-1)
        velocities = (space * time).sum(-1) / time_variances
        # Sigma_xx - Sigma_xt Sigma_tx / Sigma_tt, as the square of the factor without its part along time: stays PSD.
        conditional = space - velocities[..., None] * time
        return MovingGaussians(
            means=self.means,
            velocities=velocities,
            covariances=pack_square(conditional),
            time_means=self.time_means,
            time_deviations=time_variances[..., 0].sqrt(),
            opacities=self.opacities,
            colors=self.colors,
        )

    def slice_at(self, times: Float[Tensor, "*batch time"]) -> Gaussians3D:
        """The 3D Gaussians at model times in [-1, 1]; batch shape [*batch, time]."""
        return self.to_moving().slice_at(times)

    def render(
        self,
        cameras: Cameras,
        times: Float[Tensor, "*batch view"],
        background: Float[Tensor, "3"] | None = None,
        backend: str = "auto",
    ) -> Rendering:
        """Pictures from cameras of batch shape [*batch, view] at times in [0, 1] of the clip, all in one call.

        background: RGB, white unless given. Returns image [*batch, view, 3, height, width], alpha and depth.
        """
        if cameras.shape != times.shape:
            raise ValueError(
                f"render: cameras of shape {tuple(cameras.shape)}, times of {tuple(times.shape)}; they must agree."
            )
        if background is None:
            background = self.means.new_ones(3)
        gaussians = self.slice_at(to_model_time(times))
        one_view_a_time = cameras.to(self.means).reshape(*cameras.shape, 1)
        rendering = rasterize(gaussians, one_view_a_time, background, self.low_pass, self.compensate, backend)
        return Rendering(*(value.squeeze(-4) for value in (rendering.image, rendering.alpha, rendering.depth)))

    def save(self, path: str | Path, extra: dict | None = None) -> None:
        """Write a .safetensors file (half precision, atomically); `extra` is JSON kept in its header."""
        if self.means.dim() != 2:
            raise ValueError(f"save: expected one scene, got a batch of shape {tuple(self.means.shape[:-2])}.")
        header = {"format": FORMAT, "low_pass": self.low_pass, "compensate": self.compensate, "extra": extra or {}}
        tensors = {name: value.detach().half() for name, value in self.tensors().items()}
        write_safetensors(path, tensors, {"lrm4d": json.dumps(header)})

    @staticmethod
    def load(path: str | Path) -> "Gaussians4D":
        """Read a file written by save."""
        tensors, metadata = read_safetensors(path)
        header = json.loads(metadata.get("lrm4d", "{}"))
        expected = {field.name for field in fields(Gaussians4D)} - {"low_pass", "compensate"}
        if header.get("format") != FORMAT or set(tensors) != expected:
            raise ValueError(
                f"{path}: not a saved scene: got format {header.get('format')!r} with tensors {sorted(tensors)}, "
                f"expected {FORMAT!r} with {sorted(expected)}. Give a file that `lrm4d reconstruct` wrote."
            )
        tensors = {name: value.float() for name, value in tensors.items()}
        return Gaussians4D(**tensors, low_pass=header["low_pass"], compensate=header["compensate"])


def load_extra(path: str | Path) -> dict:
    """The JSON that was saved beside a scene's tensors."""
    _, metadata = read_safetensors(path)
    return json.loads(metadata.get("lrm4d", "{}")).get("extra", {})
