"""Views: pictures with their cameras and times, what a reconstruction starts from and is judged by."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras


@dataclass(frozen=True)
class Views:
    """Pictures of one moving thing.

    images: [*batch, view, 3, height, width], straight (not premultiplied) RGB in [0, 1].
    alphas: [*batch, view, 1, height, width], coverage in [0, 1].
    cameras: batch shape [*batch, view], of the pictures' size. times: [*batch, view] in [0, 1] over the clip.
    """

    images: Float[Tensor, "*batch view 3 height width"]
    alphas: Float[Tensor, "*batch view 1 height width"]
    cameras: Cameras
    times: Float[Tensor, "*batch view"]

    @property
    def shape(self) -> torch.Size:
        """The batch shape, views included."""
        return self.times.shape

    def __getitem__(self, index) -> "Views":
        """Views chosen along the batch dimensions."""
        return Views(self.images[index], self.alphas[index], self.cameras[index], self.times[index])

    def __len__(self) -> int:
        """The size of the first batch dimension."""
        return self.shape[0]

    def to(self, *args, **kwargs) -> "Views":
        """Moved to a device or dtype, as Tensor.to."""
        return Views(
            self.images.to(*args, **kwargs),
            self.alphas.to(*args, **kwargs),
            self.cameras.to(*args, **kwargs),
            self.times.to(*args, **kwargs),
        )

    def footprint(self) -> float:
        """The width of a pixel at the world's origin, world units; the mean of the cameras."""
        return (self.cameras.origins.norm(dim=-1) / self.cameras.intrinsics[..., 0, 0]).mean().item()

    def composite(self, background: Float[Tensor, "3"]) -> Float[Tensor, "*batch view 3 height width"]:
        """The pictures on a background colour: alpha * rgb + (1 - alpha) * background."""
        return self.alphas * self.images + (1 - self.alphas) * background[:, None, None]

    def resize(self, width: int, height: int) -> "Views":
        """The same views at another size, averaged over pixel areas (premultiplied, so that no edge colour bleeds)."""
        flat = torch.cat([self.images * self.alphas, self.alphas], dim=-3).flatten(0, -4)
        flat = torch.nn.functional.interpolate(flat, (height, width), mode="area")
        premultiplied, alphas = flat.unflatten(0, self.shape).split([3, 1], dim=-3)
        images = premultiplied / alphas.clamp(min=1e-6)
        return replace(self, images=images, alphas=alphas, cameras=self.cameras.resize(width, height))

    def resize_longer_side(self, size: int) -> "Views":
        """The same views with `size` pixels on the longer side, the other in proportion and at least one."""
        width, height = self.cameras.width, self.cameras.height
        factor = size / max(width, height)
        return self.resize(max(1, round(width * factor)), max(1, round(height * factor)))
