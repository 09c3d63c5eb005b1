"""Look into tar shards: check every file of every scene, count, and draw a contact sheet.

    python -m data_tools.inspect_shards OUT
    python -m data_tools.inspect_shards OUT --sheet sheet.png
    python -m data_tools.inspect_shards "OUT/shard-{000000..000003}.tar"

Reports every problem with its shard and key, and ends with status 1 if there is one.
"""

import argparse
import logging
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from data_tools.contact_sheet import depth_picture, flow_picture
from data_tools.shard_views import join_geometry
from lrm4d.cameras import unproject
from lrm4d.export.contact_sheet import contact_sheet, spread
from lrm4d.scenes.pictures import save_picture
from lrm4d.scenes.validation import sees_unit_sphere
from lrm4d.shards import PackedScene, ShardReader
from lrm4d.shards.fitting import fit_square
from lrm4d.views import Views

OUTSIDE = 1.05
"""How far from the world's origin a surface may be; the object belongs into the unit sphere."""
SHEET_SCENES, SHEET_VIEWS, SHEET_SIZE = 12, 8, 96
AT_ONCE = 16
"""Views decoded at once."""


@dataclass
class Findings:
    """What the shards hold, and what is wrong with them."""

    problems: list[str] = field(default_factory=list)
    scenes: int = 0
    views: Counter = field(default_factory=Counter)
    sizes: Counter = field(default_factory=Counter)
    layers: Counter = field(default_factory=Counter)
    distances: list[float] = field(default_factory=list)
    focals: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    covered: list[float] = field(default_factory=list)

    def add(self, packed: PackedScene, covered: float) -> None:
        """Count a scene in; covered: the share of its pixels that the object takes."""
        cameras = packed.header.cameras
        self.scenes += 1
        self.views[cameras.shape[0]] += 1
        self.sizes[f"{cameras.width} x {cameras.height}"] += 1
        self.layers[", ".join(packed.header.layers) or "none"] += 1
        self.distances += cameras.origins.norm(dim=-1).tolist()
        self.focals += (2 * torch.atan(cameras.width / 2 / cameras.intrinsics[:, 0, 0])).rad2deg().tolist()
        self.times += packed.header.times.tolist()
        self.covered.append(covered)


def inspect_shards(reader: ShardReader) -> Findings:
    """Read and check everything in the shards."""
    findings = Findings()
    for scene in track(range(len(reader)), "scenes"):
        try:
            packed = reader.packed(scene)
            covered = check_scene(packed)
        except ValueError as error:
            text = str(error)
            findings.problems.append(text if text.startswith(reader.name(scene)) else f"{reader.name(scene)}: {text}")
            continue
        findings.add(packed, covered)
    return findings


def check_scene(packed: PackedScene) -> float:
    """Check cameras, pictures and geometry of a scene; returns the share of pixels that the object covers."""
    cameras = packed.header.cameras
    distances = cameras.origins.norm(dim=-1)
    if bool((distances <= 1).any()):
        view = int(distances.argmin())
        raise ValueError(f"view {view}: the camera is {distances[view]:.3g} from the origin, inside the unit sphere")
    blind = ~sees_unit_sphere(cameras)
    if bool(blind.any()):
        view = int(blind.nonzero()[0])
        raise ValueError(
            f"view {view} and {int(blind.sum()) - 1} others do not see the unit sphere, where the object should be; "
            "cameras have OpenCV axes (y down, z forward) and camera_to_world matrices"
        )
    covered = 0.0
    for first in range(0, len(distances), AT_ONCE):
        views, geometry = packed.decode(range(first, min(first + AT_ONCE, len(distances))))
        covered += float(views.alphas.mean((1, 2, 3)).sum()) / len(distances)
        if geometry:
            check_geometry(views, geometry, first)
    if covered == 0:
        raise ValueError("its pictures are transparent all over")
    return covered


def check_geometry(views: Views, geometry: dict[str, Tensor], first: int) -> None:
    """The surface that depths tell must lie in front of the camera and within the unit sphere."""
    hits, depths = geometry["hits"][:, 0], geometry["depths"][:, 0]
    cameras = views.cameras
    rows, columns = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    pixels = torch.stack([columns, rows], dim=-1) + 0.5
    radii = unproject(cameras.reshape(-1, 1, 1), pixels, depths).norm(dim=-1)
    wrong = hits & ((depths <= 0) | (radii > OUTSIDE))
    if bool(wrong.any()):
        view, row, column = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"view {first + view}: the surface at pixel ({column}, {row}) has the depth "
            f"{depths[view, row, column]:.4g}, {radii[view, row, column]:.3g} from the origin; expected depth along "
            "the camera's z to something within the unit sphere"
        )


def sheet_of(reader: ShardReader) -> Float[Tensor, "3 height width"]:
    """A row each for some scenes: views in order of time, then depth and flow where they are known."""
    rows = {}
    for scene in spread(len(reader), SHEET_SCENES):
        try:
            packed = reader.packed(scene)
            in_order = packed.header.times.argsort(stable=True).tolist()
            chosen = [in_order[i] for i in spread(len(in_order), SHEET_VIEWS)]
            seen = join_geometry(*fit_square(*packed.decode(chosen), SHEET_SIZE))
        except ValueError:
            continue  # among the problems already
        pictures = seen.views.composite(torch.ones(3))
        if bool(seen.hits.any()):
            pictures = torch.cat([pictures, depth_picture(seen)[-1:], flow_picture(seen)[-1:]])
        rows[reader.places[scene][1].key] = pictures
    return contact_sheet(rows, title=f"{len(rows)} of {len(reader)} scenes")


def describe(reader: ShardReader, findings: Findings) -> str:
    """The findings in words."""
    size = sum(path.stat().st_size for path in reader.shards)
    each = f"{size / 1e3 / len(reader):.0f} kB a scene"
    lines = [
        f"{len(reader.shards)} shards, {len(reader)} scenes, {size / 1e6:.1f} MB ({each})",
        f"whole scenes: {findings.scenes}, broken: {len(findings.problems)}",
    ]
    if findings.scenes:
        lines += [
            f"views a scene: {_count(findings.views)}",
            f"picture size: {_count(findings.sizes)}",
            f"geometry: {_count(findings.layers)}",
            f"times: {_range(findings.times)}",
            f"camera distance: {_range(findings.distances)}",
            f"field of view: {_range(findings.focals)} degrees",
            f"covered by the object: {_range(findings.covered)} of the pixels",
        ]
    return "\n".join([*lines, *(f"PROBLEM {problem}" for problem in findings.problems)])


def _count(counter: Counter) -> str:
    return "; ".join(f"{value} ({count} scenes)" for value, count in counter.most_common(6))


def _range(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}, mean {sum(values) / len(values):.3g}"


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m data_tools.inspect_shards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shards", help="a folder of shards, or a pattern with braces or stars")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet to this PNG")
    given = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s")
    torch.set_num_threads(1)
    try:
        reader = ShardReader(given.shards)
        findings = inspect_shards(reader)
    except ValueError as error:
        parser.exit(1, f"{error}\n")
    print(describe(reader, findings))
    if given.sheet and findings.scenes:
        save_picture(given.sheet, sheet_of(reader))
        print(f"wrote {given.sheet}")
    sys.exit(bool(findings.problems))


if __name__ == "__main__":
    main()
