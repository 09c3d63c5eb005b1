"""A motion that all Gaussians share: nodes in space that go and turn, and carry what is near to them.

One picture a moment says where things are in one direction only. What moves as one piece must be learned as one
piece: a node's path collects the evidence of all the Gaussians around it at all times, and neighbouring nodes go
together as far as they can. A path is the sum of its steps from the fit's origin outwards, so that what is
learned of a moment carries on to the moments beyond it, which no picture has spoken of yet. The nodes themselves hang
on a dozen coarse ones, whose paths come first: a body's way is found by a few numbers, a limb's is what remains.

A pose of a node is six numbers: how far it is from its place, and the rotation vector of how it is turned.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm4d.rotations import quaternion_to_matrix, rotation_vector_to_quaternion

NEIGHBORS_OF_POINT, NEIGHBORS_OF_NODE, PARENTS_OF_NODE = 4, 6, 3
PARENTS_REACH = 1.5
"""How much farther, in their mean distances, coarse nodes carry than fine ones."""
ROUNDS = 5
"""Of k-means."""
JOINT = 0.01
"""Of the mean distance of neighbours: two that part less than this count as one piece, more as a joint."""


@dataclass(frozen=True)
class Skeleton:
    """Nodes, and how points hang on them.

    nodes: [node, 3], where they are at the origin. neighbors: [node, k], the nearest other nodes.
    parents: [node, i], the nearest coarse nodes of each node. parent_weights: [node, i], adding up to one.
    owners: [point, j], the nearest nodes of each point. weights: [point, j], adding up to one.
    """

    nodes: Float[Tensor, "node 3"]
    neighbors: Int[Tensor, "node k"]
    parents: Int[Tensor, "node i"]
    parent_weights: Float[Tensor, "node i"]
    owners: Int[Tensor, "point j"]
    weights: Float[Tensor, "point j"]

    def select(self, points: Tensor) -> "Skeleton":
        """The same nodes with other points: chosen, left out or repeated by a mask or by indices."""
        return replace(self, owners=self.owners[points], weights=self.weights[points])


def build_skeleton(points: Float[Tensor, "point 3"], count: int, coarse: int, generator: torch.Generator) -> Skeleton:
    """`count` nodes and `coarse` ones above them (fewer where there are fewer points) spread over points."""
    points = points.detach()
    nodes, coarse_nodes = spread_nodes(points, count, generator), spread_nodes(points, coarse, generator)
    owners, weights = hang(points, nodes, NEIGHBORS_OF_POINT, 1.0)
    parents, parent_weights = hang(nodes, coarse_nodes, PARENTS_OF_NODE, PARENTS_REACH)
    nearest = torch.cdist(nodes, nodes).topk(min(NEIGHBORS_OF_NODE + 1, len(nodes)), largest=False).indices
    return Skeleton(nodes, nearest[:, 1:], parents, parent_weights, owners, weights)


def spread_nodes(
    points: Float[Tensor, "point axis"], count: int, generator: torch.Generator
) -> Float[Tensor, "node axis"]:
    """At most `count` centres of points, by k-means."""
    count = min(count, len(points))
    chosen = torch.randperm(len(points), generator=generator)[:count]
    nodes = points[chosen.to(points.device)]
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, nodes).argmin(dim=1)
        members = torch.bincount(nearest, minlength=count).to(points)[:, None]
        sums = torch.zeros_like(nodes).index_add_(0, nearest, points)
        nodes = torch.where(members > 0, sums / members.clamp(min=1), nodes)
    return nodes


def hang(
    points: Float[Tensor, "point 3"], nodes: Float[Tensor, "node 3"], neighbors: int, reach: float
) -> tuple[Int[Tensor, "point k"], Float[Tensor, "point k"]]:
    """Each point's nearest nodes and their shares; `reach` in mean distances to the nearest."""
    distances, owners = torch.cdist(points, nodes).topk(min(neighbors, len(nodes)), largest=False)
    scale = reach * distances[:, :1].mean().clamp(min=1e-6)
    return owners, torch.softmax(-(distances / scale).square(), dim=1)


def poses(
    skeleton: Skeleton,
    steps: Float[Tensor, "node knot 3"],
    coarse_steps: Float[Tensor, "coarse knot 3"],
    turns: Float[Tensor, "node knot 3"],
    origin: float = 0.0,
) -> Float[Tensor, "node knot 6"]:
    """The nodes' poses at each knot; zero at the knot nearest to the model time `origin`."""
    inherited = coarse_steps[skeleton.parents] * skeleton.parent_weights[:, :, None, None]
    sums = torch.cat([steps + inherited.sum(dim=1), turns], dim=-1).cumsum(dim=1)
    rest = int((origin + 1) / 2 * (steps.shape[1] - 1) + 0.5)
    return sums - sums[:, rest : rest + 1]


def poses_at(poses: Float[Tensor, "node knot 6"], times: Float[Tensor, "time"]) -> Float[Tensor, "node time 6"]:
    """The poses at model times in [-1, 1], straight between the knots, which are evenly spaced."""
    last = poses.shape[1] - 1
    places = ((times + 1) / 2 * last).clamp(0, last)
    before = places.floor().long().clamp(max=last - 1)
    share = (places - before)[:, None]
    return poses[:, before] * (1 - share) + poses[:, before + 1] * share


def to_transforms(skeleton: Skeleton, poses: Float[Tensor, "node time 6"]) -> Float[Tensor, "time node 3 4"]:
    """What the nodes do to what hangs on them: (R | b), which takes y to R y + b."""
    rotations = quaternion_to_matrix(rotation_vector_to_quaternion(poses[..., 3:]))
    nodes = skeleton.nodes[:, None, :, None]
    offsets = nodes + poses[..., :3, None] - rotations @ nodes
    return torch.cat([rotations, offsets], dim=-1).transpose(0, 1)


def rigidity_loss(skeleton: Skeleton, transforms: Float[Tensor, "time node 3 4"]) -> Float[Tensor, ""]:
    """How far nodes are from where their neighbours would take them, in the mean distance of neighbours.

    Of each pair the root mean square over time, less than JOINT as good as nothing; of the pairs the mean. Squares
    alone (as rigid as possible: Sorkine and Alexa, 2007) bend everything a little; their roots let few pairs part a
    lot, which are the joints, and keep the others together.
    """
    if skeleton.neighbors.shape[1] == 0:
        return transforms.new_zeros(())
    nodes, neighbors = skeleton.nodes, skeleton.neighbors
    rotations, offsets = transforms[..., :3], transforms[..., 3]
    placed = (rotations @ nodes[..., None])[..., 0] + offsets
    taken = torch.einsum("tnij,nkj->tnki", rotations, nodes[neighbors]) + offsets[:, :, None]
    spacing = (nodes[:, None] - nodes[neighbors]).norm(dim=-1).mean()
    parted = ((taken - placed[:, neighbors]) / spacing).square().sum(-1).mean(dim=0)
    return ((parted + JOINT**2).sqrt() - JOINT).mean()


def unsteadiness_loss(steps: Float[Tensor, "node knot 3"]) -> Float[Tensor, ""]:
    """How much the paths bend: squares of the changes of their steps, in world units per knot, times the knots."""
    return steps.shape[1] * steps.diff(dim=1).square().mean()
