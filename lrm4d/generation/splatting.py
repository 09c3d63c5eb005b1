"""Forward splatting with a soft z-buffer: every pixel of a picture with depth goes to where another camera sees it.

Where a surface stays whole, the result is the picture bilinearly interpolated; where it breaks up, what is nearer
hides what is behind, to the pixel. Three steps a picture:

1. Pixel (u, v) at depth z lands at q = z M (u, v, 1) + b: pixel coordinates (q_x / q_z, q_y / q_z), depth q_z. Its
   footprint is a box that reaches half-way to where its neighbours on the same surface land, so that stretching opens
   no cracks; at least one pixel, at most MOST_STRETCH, wide.
2. A pixel of the result is seen if its centre is in a footprint; it belongs to the nearest such one, of depth z0.
3. Its colour and depth are means of all that land around it with weights k_x k_y bell(d): k a tent over twice the
   footprint, d = (z - z0) / (SOFTNESS z0), bell(d) = (1 - d^2)^2 within [-1, 1] and 0 beyond. So no background bleeds
   into the foreground, and no foreground reaches past its footprints as a halo.

Softmax splatting (Niklaus and Liu, arXiv 2003.05534) weighs by exp(-z) alone, which bleeds a little everywhere and
widens the foreground by the kernel; the footprints are those of surface splatting (Zwicker et al., 2001), as boxes.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm4d.operators import load_operators

SOFTNESS = 0.05
"""Surfaces that differ in depth by less than this share are blended, the more the nearer they are."""
JUMP = 0.05
"""Neighbouring pixels whose depths differ by more than this share of the smaller are not on one surface."""
MOST_STRETCH = 3.0
"""Pixels: the largest footprint. What is stretched more was not seen well enough and shows cracks."""
MARGIN = 0.01
"""Pixels by which footprints are larger on each side, so that rounding opens no cracks."""
SNAP = 1e-3
"""Pixels: what lands so near to a pixel's centre lands on it, so that a camera at rest changes nothing at all."""
SETTINGS = (SOFTNESS, JUMP, MOST_STRETCH, MARGIN, SNAP)


def splat(
    images: Float[Tensor, "source 3 h w"],
    depths: Float[Tensor, "source h w"],
    matrices: Float[Tensor, "source view 3 3"],
    offsets: Float[Tensor, "source view 3"],
    width: int,
    height: int,
) -> tuple[
    Float[Tensor, "source view 3 height width"],
    Float[Tensor, "source view height width"],
    Int[Tensor, "source view height width"],
]:
    """Splat every source to its views, as this file describes: picture, depth, and the nearest source pixel.

    depths: camera z, 0 where a pixel is not to be used. matrices and offsets: M and b above. Picture and depth are 0
    and the nearest pixel -1 where nothing lands. Differentiable (first derivatives) by images, depths, matrices and
    offsets; the sizes of footprints count as constants.
    """
    views = matrices.shape[:2]
    inputs = (images, depths, matrices.flatten(0, 1), offsets.flatten(0, 1))
    if depths.device.type == "cpu" and load_operators():
        image, depth, nearest = _Splat.apply(*(x.float().contiguous() for x in inputs), width, height)
    else:
        image, depth, nearest = splat_reference(*inputs, width, height)
    return tuple(result.unflatten(0, views) for result in (image.to(images), depth.to(depths), nearest))


class _Splat(torch.autograd.Function):
    """The C++ operator with its gradient; arguments and results are those of splat_reference."""

    @staticmethod
    def forward(ctx, images, depths, matrices, offsets, width, height):
        plane = (len(matrices), height, width)
        image = images.new_empty(len(matrices), 3, height, width)
        depth, weight = images.new_empty(plane), images.new_empty(plane)
        nearest = images.new_empty(plane, dtype=torch.int32)
        inputs = (images, depths, matrices, offsets)
        torch.ops.lrm4d.splat_forward(image, depth, weight, nearest, *inputs, *SETTINGS)
        ctx.save_for_backward(image, depth, weight, nearest, *inputs)
        ctx.mark_non_differentiable(nearest)
        return image, depth, nearest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_image, grad_depth, _):
        inputs = ctx.saved_tensors[4:]
        pictures, sources = len(inputs[2]), len(inputs[0])
        gradients = [inputs[0].new_empty(pictures, *x.shape[1:]) for x in inputs]
        given = (grad_image.contiguous(), grad_depth.contiguous())
        torch.ops.lrm4d.splat_backward(*gradients, *given, *ctx.saved_tensors, *SETTINGS)
        shared = [x.unflatten(0, (sources, -1)).sum(1) for x in gradients[:2]]
        return *shared, *gradients[2:], None, None


def splat_reference(
    images: Float[Tensor, "source 3 h w"],
    depths: Float[Tensor, "source h w"],
    matrices: Float[Tensor, "picture 3 3"],
    offsets: Float[Tensor, "picture 3"],
    width: int,
    height: int,
) -> tuple[
    Float[Tensor, "picture 3 height width"],
    Float[Tensor, "picture height width"],
    Int[Tensor, "picture height width"],
]:
    """The same in plain PyTorch, any float type: the oracle of the operator, and the way on CUDA.

    Pictures of one source follow each other.
    """
    views = len(matrices) // len(depths)
    colors, depths = (x.repeat_interleave(views, 0) for x in (images.flatten(2), depths))
    places, z = land(depths, matrices, offsets)
    spans = measure_footprints(depths, places, z, matrices)
    places, spans, z = places.flatten(1, 2), spans.flatten(1, 2), z.flatten(1)
    nearest = find_nearest(places, spans, z, width, height)
    sums = z.new_zeros(5, len(z) * height * width)
    for picture, source, pixel, tent in touches(places, spans, z, width, height, reach=1.0):
        front = nearest.flatten()[pixel].long()
        kept = front >= 0
        picture, source, pixel, tent, front = (x[kept] for x in (picture, source, pixel, tent, front))
        mine, first = z[picture, source], z[picture, front]
        bell = (1 - ((mine - first) / (first * SOFTNESS)).square()).clamp(min=0).square()
        values = torch.cat([colors[picture, :, source].T, mine[None], torch.ones_like(mine)[None]])
        sums = sums.index_add(1, pixel, values * (tent * bell))
    means = torch.where(sums[4] > 0, sums[:4] / sums[4].clamp(min=1e-12), 0.0)
    means = means.unflatten(1, (len(z), height, width))
    return means[:3].movedim(0, 1), means[3], nearest


def land(
    depths: Float[Tensor, "picture h w"], matrices: Float[Tensor, "picture 3 3"], offsets: Float[Tensor, "picture 3"]
) -> tuple[Float[Tensor, "picture h w 2"], Float[Tensor, "picture h w"]]:
    """Pixel coordinates (x, y) where pixels land, and depth there; both 0 for those that land nowhere."""
    h, w = depths.shape[1:]
    rows, columns = (torch.arange(n, dtype=depths.dtype, device=depths.device) + 0.5 for n in (h, w))
    home = torch.stack(torch.broadcast_tensors(columns, rows[:, None], torch.ones_like(depths[0])), dim=-1)
    q = (home @ matrices[:, None].mT) * depths[..., None] + offsets[:, None, None]
    z = q[..., 2]
    places = q[..., :2] / torch.where(z > 0, z, 1.0)[..., None]
    lands = (depths > 0) & (z > 0) & z.isfinite() & (places.abs() < 1e6).all(-1)
    places = torch.where(lands[..., None], places, 0.0)
    centres = places.detach().floor() + 0.5
    shift = torch.where((places.detach() - centres).abs() < SNAP, centres - places.detach(), 0.0)
    return places + shift, torch.where(lands, z, 0.0)


@torch.no_grad()
def measure_footprints(
    depths: Float[Tensor, "picture h w"],
    places: Float[Tensor, "picture h w 2"],
    z: Float[Tensor, "picture h w"],
    matrices: Float[Tensor, "picture 3 3"],
) -> Float[Tensor, "picture h w 2"]:
    """Width and height of footprints: how far off the neighbours on the same surface land.

    For want of such neighbours, as if the surface faced the camera.
    """
    spans = torch.zeros_like(places)
    zoom = (depths / torch.where(z > 0, z, 1.0))[..., None]
    for axis, dim in ((0, 2), (1, 1)):
        n = depths.shape[dim] - 1
        a, b = depths.narrow(dim, 0, n), depths.narrow(dim, 1, n)
        same = (z.narrow(dim, 0, n) > 0) & (z.narrow(dim, 1, n) > 0)
        same &= (a - b).abs() <= JUMP * torch.minimum(a, b)
        gaps = (places.narrow(dim, 1, n) - places.narrow(dim, 0, n)).abs()
        gaps = torch.where(same[..., None], gaps, -1.0)
        none = torch.full_like(places.narrow(dim, 0, 1), -1.0)
        widest = torch.maximum(torch.cat([gaps, none], dim), torch.cat([none, gaps], dim))
        column = matrices[:, None, None, :, axis]
        facing = (zoom * (column[..., :2] - places * column[..., 2:])).abs()
        spans += torch.where(widest >= 0, widest, facing)
    return spans.clamp(1.0, MOST_STRETCH)


@torch.no_grad()
def find_nearest(
    places: Float[Tensor, "picture n 2"],
    spans: Float[Tensor, "picture n 2"],
    z: Float[Tensor, "picture n"],
    width: int,
    height: int,
) -> Int[Tensor, "picture height width"]:
    """For each pixel the nearest source pixel whose footprint has its centre, the first among equals; -1 for none."""
    found = [(x[0], x[1], x[2]) for x in touches(places, spans, z, width, height, reach=0.5)]
    depth = z.new_full((len(z) * height * width,), math.inf)
    for picture, source, pixel in found:
        depth.scatter_reduce_(0, pixel, z[picture, source], "amin")
    nobody = z.shape[1]
    nearest = torch.full_like(depth, nobody, dtype=torch.int64)
    for picture, source, pixel in found:
        first = z[picture, source] == depth[pixel]
        nearest.scatter_reduce_(0, pixel[first], source[first], "amin")
    return torch.where(nearest < nobody, nearest, -1).to(torch.int32).view(-1, height, width)


def touches(places, spans, z, width, height, reach):
    """All pairs of a source pixel and a pixel whose centre is within reach (1: the tent; 0.5: the footprint).

    Yields, a group at a time, the picture, the source pixel, the pixel among those of all pictures, and the tent.
    """
    half = spans * reach + (MARGIN if reach < 1 else 0.0)
    most = math.ceil(float(half.max())) if half.numel() else 0
    for row in range(-most, most + 1):
        for column in range(-most, most + 1):
            cell = places.detach().floor() + places.new_tensor([column, row])
            gap = (cell + 0.5 - places).abs()
            inside = (cell >= 0) & (cell < cell.new_tensor([width, height])) & (gap <= half)
            picture, source = (inside.all(-1) & (z > 0)).nonzero(as_tuple=True)
            x, y = cell[picture, source].long().unbind(-1)
            tent = (1 - gap[picture, source] / spans[picture, source]).prod(-1)
            yield picture, source, (picture * height + y) * width + x, tent
