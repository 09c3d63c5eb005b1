"""Routes: the stations on the way from a video's camera to the cameras that are wanted, around the world's origin.

Far from the video a warp is mostly holes. SEE4D (arXiv 2510.26796) goes there in small hops: each station's pictures
are completed, and the next station is warped to from them.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lrm4d.cameras import Cameras, join_cameras
from lrm4d.rotations import matrix_to_quaternion, quaternion_to_matrix
from lrm4d.trajectories.recording import slerp
from lrm4d.trajectories.state import START, cameras_of


@dataclass(frozen=True)
class Route:
    """Stations, and from which other one each is warped to.

    cameras: [time, station]: first the views that are wanted, of which 0 is the video's own, then the stops between.
    origins: of each station, the one that it is warped to from; 0 has itself.
    """

    cameras: Cameras
    origins: tuple[int, ...]

    def hops(self, station: int) -> int:
        """How many warps lie between the video and a station."""
        return 0 if station == 0 else 1 + self.hops(self.origins[station])

    def generations(self) -> list[list[int]]:
        """Stations by their number of hops, from 1 on: each can be made once those before it are."""
        hops = [self.hops(station) for station in range(len(self.origins))]
        return [[s for s, count in enumerate(hops) if count == wanted] for wanted in range(1, max(hops) + 1)]


def straight(cameras: Cameras) -> Route:
    """Every view [time, view] is warped to from the video itself, view 0."""
    return Route(cameras, (0,) * cameras.shape[1])


def spline(cameras: Cameras, max_hop: float) -> Route:
    """Stops between views [time, view], so that no hop turns more than max_hop degrees around the world's origin.

    Each view is reached from the nearest that is reached already, so that a ring is walked along and not begun anew
    for each of its cameras. Stops lie evenly in azimuth, elevation and log distance; cameras that look at the origin
    do so at every stop. Angles are the largest over time. ValueError for a camera at the origin or a hop of 0.
    """
    if not max_hop > 0:
        raise ValueError(f"max_hop {max_hop:g}: expected degrees above 0.")
    if bool((cameras.origins.norm(dim=-1) < 1e-6).any()):
        raise ValueError("route: a camera stands at the pivot itself, so there is no way around it.")
    views = cameras.shape[1]
    angles = torch.stack([turns(cameras[:, view, None], cameras).amax(0) for view in range(views)])
    reached, left = [0], set(range(1, views))
    origins, stops = [0] * views, []
    while left:
        first, last = min(((a, b) for a in reached for b in sorted(left)), key=lambda pair: float(angles[pair]))
        origins[last] = first
        for stop in stops_between(cameras[:, first], cameras[:, last], max_hop):
            origins.append(origins[last])
            stops.append(stop)
            origins[last] = len(origins) - 1
        reached.append(last)
        left.remove(last)
    return Route(join_cameras([cameras, *(stop.reshape(-1, 1) for stop in stops)], dim=1), tuple(origins))


def turns(first: Cameras, last: Cameras) -> Float[Tensor, "*batch"]:
    """By how many degrees one camera's place is turned around the world's origin from another's."""
    a, b = (torch.nn.functional.normalize(c.origins.double(), dim=-1) for c in (first, last))
    return torch.rad2deg(2 * torch.atan2((a - b).norm(dim=-1), (a + b).norm(dim=-1)))


def stops_between(first: Cameras, last: Cameras, max_hop: float) -> list[Cameras]:
    """The fewest even stops [time] between cameras [time], both ends left out."""
    count = max(1, math.ceil(float(turns(first, last).max()) / max_hop - 1e-6))
    while True:
        stops = [_between(first, last, index / count) for index in range(1, count)]
        walk = [first, *stops, last]
        if all(bool((turns(a, b) <= max_hop * (1 + 1e-4)).all()) for a, b in pairwise(walk)):
            return stops
        count += 1


def _between(first: Cameras, last: Cameras, share: float) -> Cameras:
    """Cameras [time] a share of the way: stands are blended, and how each leans off from looking at the origin."""
    starts, ends = _stands(first), _stands(last)
    ends[:, 0] = starts[:, 0] + (ends[:, 0] - starts[:, 0] + 180) % 360 - 180
    states = torch.lerp(starts, ends, share)
    start, end = (
        matrix_to_quaternion(_upright(states).mT @ cameras.camera_to_world[:, :3, :3].double())
        for states, cameras in ((starts, first), (ends, last))
    )
    lean = quaternion_to_matrix(slerp(start, end, states.new_full((len(states),), share)))
    poses = cameras_of(states, first.width, first.height).camera_to_world.to(first.camera_to_world)
    poses[:, :3, :3] = (_upright(states) @ lean).to(poses)
    return replace(first, camera_to_world=poses, intrinsics=torch.lerp(first.intrinsics, last.intrinsics, share))


def _stands(cameras: Cameras) -> Float[Tensor, "time 9"]:
    """Azimuth, elevation (degrees) and log distance of cameras' places, as trajectories' states."""
    x, y, z = cameras.origins.double().unbind(-1)
    states = START.to_vector().repeat(len(x), 1)
    states[:, 0] = torch.rad2deg(torch.atan2(x, -y))
    states[:, 1] = torch.rad2deg(torch.atan2(z, torch.hypot(x, y)))
    states[:, 2] = cameras.origins.double().norm(dim=-1).log()
    return states


def _upright(states: Float[Tensor, "time 9"]) -> Float[Tensor, "time 3 3"]:
    """The rotations of upright cameras there that look at the origin."""
    return cameras_of(states, 2, 2).camera_to_world[:, :3, :3].double()
