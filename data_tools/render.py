"""Pictures of scenes from any cameras at any times, with exact depth and scene flow; the same code on CPU and CUDA."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from data_tools.motion import MOVING, Spines, chain_frames, evaluate_waves, rotate_about_axes
from data_tools.rasterize_triangles import farthest_depths, rasterize_triangles
from data_tools.scenes import Scenes
from data_tools.shapes import COLUMNS, ROWS, grid_corners, grid_faces
from data_tools.textures import shade_textures
from lrm4d.cameras import Cameras
from lrm4d.views import Views

SAMPLES = 3
"""Samples a pixel side. Odd, so that one of them is the pixel's centre, where depth and flow are taken."""


STEP = 1e-4
"""Half the time over which velocities are taken."""


@dataclass(frozen=True)
class WorldViews:
    """Views, and what only a made world knows of them, at the pixel centres.

    depths: camera z of the surface, 0 where nothing is hit. hits: whether something is hit.
    flows: velocity of the point seen, world units over the whole clip (time 0 to 1); 0 where nothing is hit.
    exits: camera z of the last surface along the ray, seen from behind; 0 where nothing is hit.
    """

    views: Views
    depths: Float[Tensor, "*batch view 1 height width"]
    hits: Bool[Tensor, "*batch view 1 height width"]
    flows: Float[Tensor, "*batch view 3 height width"]
    exits: Float[Tensor, "*batch view 1 height width"]

    def __getitem__(self, index) -> "WorldViews":
        """Views chosen along the batch dimensions."""
        return WorldViews(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> "WorldViews":
        """Moved to a device."""
        return WorldViews(*(getattr(self, f.name).to(device) for f in fields(self)))


def place_rows(
    scenes: Scenes, times: Float[Tensor, "scene view"]
) -> tuple[Float[Tensor, "part view row 3 3"], Float[Tensor, "part view row 3"]]:
    """The frame in the world of every row of every present part (scene by scene) at its scene's times."""
    here = owner, _ = scenes.here
    parents, root = scenes.parents[here], scenes.parents[here] < 0
    counts = scenes.present.sum(1)
    starts = counts.cumsum(0) - counts
    parents = torch.where(root, torch.arange(len(owner), device=owner.device), starts[owner] + parents)
    part_times = times[owner][..., None]  # [part, view, wave]
    spines = _spines(scenes, part_times)
    attach, above = scenes.attach[here], spines[parents]
    matrices, positions = (value.squeeze(2) for value in above.frames(attach[:, 2:]))
    across = torch.cat([attach[:, :2], torch.zeros_like(attach[:, :1])], dim=-1)[:, None, :, None]
    positions = positions + (matrices @ across)[..., 0]
    # A child follows its parent's turns, not its stretching.
    matrices = matrices / above.stretch[..., None, :]
    positions = torch.where(root[:, None, None], attach[:, None], positions)
    matrices = torch.where(root[:, None, None, None], torch.eye(3, dtype=times.dtype, device=times.device), matrices)
    slide = evaluate_waves(scenes.slide[here][:, None], part_times)
    positions = positions + (matrices @ slide[..., None])[..., 0]
    rigid = (spines.blend == 0)[:, None, None]  # the sockets of the others are in their spines
    matrices = matrices @ scenes.orientations[here][:, None] @ rotate_about_axes(spines.socket * rigid)
    matrices, positions = chain_frames(matrices, positions, parents, root, int(scenes.levels.max()))

    turning = rotate_about_axes(evaluate_waves(scenes.turning[:, None], times[..., None]))[owner]
    path = evaluate_waves(scenes.path[:, None], times[..., None])[owner]
    positions = (turning @ positions[..., None])[..., 0] + path - scenes.centres[owner][:, None]
    scale = scenes.scales[owner][:, None, None]
    positions, matrices = positions / scale, turning @ matrices / scale[..., None]

    row_matrices, row_positions = spines.frames(scenes.row_heights[here])
    # All rows of a part in one product: a GPU multiplies few matrices of many columns faster than many small ones.
    row_positions = row_positions @ matrices.mT + positions[:, :, None]
    columns = row_matrices.mT.flatten(2, 3) @ matrices.mT
    return columns.unflatten(2, (-1, 3)).mT, row_positions


def _spines(scenes: Scenes, part_times: Tensor) -> Spines:
    """The spines of the present parts; part_times: [part, view, 1]."""
    here = scenes.here
    return Spines(
        stretch=evaluate_waves(scenes.stretch[here][:, None], part_times),
        twist=evaluate_waves(scenes.twist[here][:, None], part_times[..., 0]),
        socket=evaluate_waves(scenes.socket[here][:, None], part_times),
        blend=scenes.blend[here],
        joint_heights=scenes.joint_heights[here],
        joint_widths=scenes.joint_widths[here],
        joint_directions=scenes.joint_directions[here],
        joint_angles=evaluate_waves(scenes.joint_angles[here][:, None], part_times),
        joint_used=torch.stack([scenes.joint_angles[here][..., i] != 0 for i in MOVING]).any(0),
    )


def _morphs(scenes: Scenes, times: Tensor) -> Tensor:
    """How far every present part is morphed at its scene's times [part, view]."""
    return evaluate_waves(scenes.morph[scenes.here][:, None], times[scenes.here[0]])


def place_vertices(scenes: Scenes, times: Float[Tensor, "scene view"]) -> Float[Tensor, "part view vertex 3"]:
    """World positions of the vertices of every present part (scene by scene) at its scene's times."""
    return _vertices(scenes, *place_rows(scenes, times), _morphs(scenes, times))


def place_moving_vertices(
    scenes: Scenes, times: Float[Tensor, "scene view"]
) -> tuple[Float[Tensor, "part view vertex 3"], Float[Tensor, "part view vertex 3"]]:
    """place_vertices and their velocities (world units a clip).

    A central difference in double precision, good to 1e-6; carrying the derivative through every operation of so small
    tensors is several times slower.
    """
    moved = {f.name: getattr(scenes, f.name) for f in fields(Scenes)}
    precise = Scenes(**{name: v.double() if v.is_floating_point() else v for name, v in moved.items()})
    here, before, after = times.double(), times.double() - STEP, times.double() + STEP
    steps = torch.cat([here, before, after], dim=1)
    placed = [
        value.unflatten(1, (3, -1)).unbind(1) for value in (*place_rows(precise, steps), _morphs(precise, steps))
    ]
    matrices, positions, morph = (value[0].float() for value in placed)
    rates = [((after - before) / (2 * STEP)).float() for _, before, after in placed]
    vertices = _vertices(scenes, matrices, positions, morph)
    velocities = _vertices(scenes, rates[0], rates[1], morph)
    if bool((rates[2] != 0).any()):
        change = rates[2][..., None, None, None] * scenes.morph_offsets[scenes.here][:, None]
        velocities = velocities + (change @ matrices.mT).flatten(2, 3)
    return vertices, velocities


def _vertices(scenes: Scenes, matrices: Tensor, positions: Tensor, morph: Tensor) -> Tensor:
    """Vertices [part, view, vertex, 3] from the frames of the rows and the morphs [part, view]."""
    here = scenes.here
    offsets = scenes.offsets[here][:, None]
    offsets = offsets + morph[..., None, None, None] * scenes.morph_offsets[here][:, None]
    return (offsets @ matrices.mT + positions[..., None, :]).flatten(2, 3)


def render(scenes: Scenes, cameras: Cameras, times: Float[Tensor, "scene view"], samples: int = SAMPLES) -> WorldViews:
    """Pictures of each scene: cameras [scene, view], times [scene, view] in [0, 1]; samples: odd, a pixel side."""
    if samples % 2 == 0:
        raise ValueError(f"render: samples = {samples}; it must be odd, so that one sample is the pixel's centre.")
    if cameras.shape != times.shape or len(scenes) != len(times):
        raise ValueError(
            f"render: {len(scenes)} scenes, cameras {tuple(cameras.shape)} and times {tuple(times.shape)}; expected "
            "cameras and times of the same shape [scene, view]."
        )
    vertices, velocities = place_moving_vertices(scenes, times)
    count = times.shape[1] * cameras.height * cameras.width * samples**2
    limit = 2**27 if times.device.type == "cuda" else 2**21  # 5 GB, twice that if all is full; what stays in the cache
    chunk = max(1, limit // count)
    parts = [0, *scenes.present.sum(1).cumsum(0).tolist()]
    done = []
    for i in range(0, len(scenes), chunk):
        j = min(i + chunk, len(scenes))
        here = slice(parts[i], parts[j])
        done.append(_draw(scenes[i:j], cameras[i:j], vertices[here], velocities[here], samples))
    rgba, depths, hits, flows, exits = (torch.cat(values) for values in zip(*done, strict=True))
    views = Views(rgba[:, :, :3], rgba[:, :, 3:], cameras, times)
    return WorldViews(views, depths, hits, flows, exits)


def _draw(
    scenes: Scenes, cameras: Cameras, vertices: Tensor, velocities: Tensor, samples: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """RGBA, depth, hits, flow and exits [scene, view, channel, height, width] of vertices [part, view, vertex, 3]."""
    owner, device = scenes.here[0], vertices.device
    views, height, width = vertices.shape[1], cameras.height, cameras.width
    faces = grid_faces(device)
    projected = _project(cameras, owner, vertices, samples)
    pictures = (owner[:, None] * views + torch.arange(views, device=device))[:, :, None]
    pictures = pictures.expand(-1, -1, len(faces)).flatten()
    corners = grid_corners(projected).flatten(0, 2)
    hit = rasterize_triangles(corners, pictures, len(scenes) * views, height * samples, width * samples)

    part_view, face = torch.div(hit.triangles, len(faces), rounding_mode="floor"), hit.triangles % len(faces)
    part = torch.div(part_view, views, rounding_mode="floor")
    light = _shade(scenes, owner, vertices).flatten(0, 2).index_select(0, hit.triangles)
    albedo = _albedo(scenes, part, face, hit.weights)
    colours = (albedo * _blend(light[..., None], hit.weights)).clamp(0, 1)

    x, y = hit.index % (width * samples), torch.div(hit.index, width * samples, rounding_mode="floor")
    pixel = torch.div(y, samples, rounding_mode="floor") * width + torch.div(x, samples, rounding_mode="floor")
    total = torch.zeros(len(scenes) * views * height * width, 4, device=device)
    total.index_add_(0, pixel, torch.cat([colours, torch.ones_like(colours[:, :1])], dim=-1))
    rgba = torch.cat([total[:, :3] / total[:, 3:].clamp(min=1), total[:, 3:] / samples**2], dim=-1)

    middle = samples // 2
    centre = ((x % samples == middle) & (y % samples == middle)).nonzero()[:, 0]
    geometry = torch.zeros(len(total), 5, device=device)
    ends = velocities.flatten(0, 1)[part_view[centre, None], faces[face[centre]]]
    flow = _blend(ends, hit.weights[centre])
    geometry[pixel[centre]] = torch.cat([hit.depth[centre, None], torch.ones_like(flow[:, :1]), flow], dim=-1)

    def picture(values: Tensor) -> Tensor:
        return values.unflatten(0, (len(scenes), views, height, width)).movedim(-1, 2)

    at_centres = torch.cat([corners[..., :2] / samples, corners[..., 2:]], dim=-1)
    exits = farthest_depths(at_centres, pictures, len(scenes) * views, height, width)
    geometry = picture(geometry)
    hits = geometry[:, :, 1:2] > 0
    return picture(rgba), geometry[:, :, :1], hits, geometry[:, :, 2:], picture(exits[:, None]) * hits


def _blend(corners: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums [n, k] of corners [n, 3, k]; written out, since sums over three numbers are slow."""
    a, b, c = weights[..., None].unbind(1)
    return corners[:, 0] * a + corners[:, 1] * b + corners[:, 2] * c


def _project(cameras: Cameras, owner: Tensor, vertices: Tensor, samples: int) -> Tensor:
    """[part, view, vertex, 3]: x and y in samples, camera z."""
    to_camera = cameras.world_to_camera[owner]
    in_camera = vertices @ to_camera[..., :3, :3].mT + to_camera[..., None, :3, 3]
    depth = in_camera[..., 2:]
    flat = in_camera @ cameras.intrinsics[owner].mT
    return torch.cat([samples * flat[..., :2] / depth.clamp(min=1e-3), depth], dim=-1)


def _shade(scenes: Scenes, owner: Tensor, vertices: Tensor) -> Tensor:
    """The light [part, view, face, corner] that falls on every triangle's corners."""
    a, b, c = grid_corners(vertices).unbind(-2)
    normals = torch.linalg.cross(b - a, c - a, dim=-1)
    flat = _light(scenes, owner, normals)[..., None].expand(-1, -1, -1, 3)
    smooth = scenes.smooth[scenes.here].nonzero()[:, 0]
    if len(smooth) == 0:
        return flat
    quads = normals[smooth].unflatten(2, (ROWS - 1, COLUMNS, 2)).sum(4)
    none = torch.zeros_like(quads[:, :, :1])
    below, above = torch.cat([none, quads], 2), torch.cat([quads, none], 2)
    both = below + above
    both = both + both.roll(1, dims=3)
    tube = scenes.offsets[scenes.here][smooth][:, 0, 0, :2].norm(dim=-1) > 1e-6
    first, last = both[:, :, 0], both[:, :, -1]
    joined = tube[:, None, None, None]
    first, last = (torch.where(joined, first + last, end.sum(2, keepdim=True).expand_as(end)) for end in (first, last))
    both = torch.cat([first[:, :, None], both[:, :, 1:-1], last[:, :, None]], dim=2).flatten(2, 3)
    light = flat.clone()
    light[smooth] = grid_corners(_light(scenes, owner[smooth], both)[..., None])[..., 0]
    return light


def _light(scenes: Scenes, owner: Tensor, normals: Tensor) -> Tensor:
    cosines = normalize(normals, dim=-1) @ scenes.light_directions[owner][:, None].mT
    direct = (cosines.clamp(min=0) * scenes.light_shares[owner][:, None, None]).sum(-1)
    return scenes.gain[owner][:, None, None] * (scenes.ambient[owner][:, None, None] + direct)


def _albedo(scenes: Scenes, part: Tensor, face: Tensor, weights: Tensor) -> Tensor:
    """The texture's colour at samples [n, 3] of present parts."""
    here = scenes.here
    kinds = scenes.texture_kinds[here]
    colours = scenes.texture_colours[here][:, 0].index_select(0, part)
    index = kinds[part].nonzero()[:, 0]  # the others are flat, and most are
    part, face, weights = part[index], face[index], weights.index_select(0, index)
    heights = scenes.row_heights[here]
    spine = torch.stack([torch.zeros_like(heights), torch.zeros_like(heights), heights], dim=-1)
    rest = (scenes.offsets[here] + spine[:, :, None]).flatten(1, 2)
    axes, spans = scenes.texture_axes[here], scenes.texture_spans[here]
    ends = grid_corners(rest @ axes.mT)  # texture coordinates of the corners, before their offsets
    unit = axes[:, 0].norm(dim=-1)
    corners = ends.flatten(0, 1).index_select(0, part * ends.shape[1] + face)
    points = _blend(corners, weights)
    low, high = (spans * unit[:, None]).index_select(0, part).unbind(-1)
    colours[index] = shade_textures(
        kinds[part],
        scenes.texture_colours[here].index_select(0, part),
        points + scenes.texture_offsets[here].index_select(0, part),
        ((points[:, 0] - low) / (high - low).clamp(min=1e-6)).clamp(0, 1),
        face,
        scenes.texture_thresholds[here][part],
        scenes.texture_seeds[here][part],
    )
    return colours
