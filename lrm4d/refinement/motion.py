"""A motion that all Gaussians share: nodes in space with a path each, which carry what is near to them.

One picture a moment says where things are in one direction only. What moves as one piece must be learned as one
piece: a node's path collects the evidence of all the Gaussians around it at all times, and the paths of neighbouring
nodes keep their distances. A path is the sum of its steps from the fit's origin outwards, so that what is
learned of a moment carries on to the moments beyond it, which no picture has spoken of yet. The nodes themselves hang
on a dozen coarse ones, whose paths come first: a body's way is found by a few numbers, a limb's is what remains.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

NEIGHBORS_OF_POINT, NEIGHBORS_OF_NODE, PARENTS_OF_NODE = 4, 6, 3
PARENTS_REACH = 1.5
"""How much farther, in their mean distances, coarse nodes carry than fine ones."""
ROUNDS = 5
"""Of k-means."""


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


def paths(
    skeleton: Skeleton,
    steps: Float[Tensor, "node knot 3"],
    coarse_steps: Float[Tensor, "coarse knot 3"],
    origin: float = 0.0,
) -> Float[Tensor, "node knot 3"]:
    """How far each node is from its place, at each knot; zero at the knot nearest to the model time `origin`."""
    inherited = coarse_steps[skeleton.parents] * skeleton.parent_weights[:, :, None, None]
    sums = (steps + inherited.sum(dim=1)).cumsum(dim=1)
    rest = int((origin + 1) / 2 * (steps.shape[1] - 1) + 0.5)
    return sums - sums[:, rest : rest + 1]


def shifts_at(paths: Float[Tensor, "node knot 3"], times: Float[Tensor, "time"]) -> Float[Tensor, "node time 3"]:
    """The paths at model times in [-1, 1], straight between the knots, which are evenly spaced."""
    last = paths.shape[1] - 1
    places = ((times + 1) / 2 * last).clamp(0, last)
    before = places.floor().long().clamp(max=last - 1)
    share = (places - before)[:, None]
    return paths[:, before] * (1 - share) + paths[:, before + 1] * share


def carry(skeleton: Skeleton, shifts: Float[Tensor, "node time 3"]) -> Float[Tensor, "time point 3"]:
    """How far the points go with their nodes."""
    # A product with a dense matrix is quicker than gathers, whose gradients must be scattered.
    shares = shifts.new_zeros(len(skeleton.owners), len(skeleton.nodes))
    shares.scatter_add_(1, skeleton.owners, skeleton.weights)
    return (shares @ shifts.flatten(1)).unflatten(1, shifts.shape[1:]).transpose(0, 1)


def rigidity_loss(skeleton: Skeleton, shifts: Float[Tensor, "node time 3"]) -> Float[Tensor, ""]:
    """How much neighbouring nodes change their distance: squares of the change over the mean distance."""
    if skeleton.neighbors.shape[1] == 0:
        return shifts.new_zeros(())
    placed = skeleton.nodes[:, None] + shifts
    apart = (placed[:, None] - placed[skeleton.neighbors]).square().sum(-1).add(1e-12).sqrt()
    rest = (skeleton.nodes[:, None] - skeleton.nodes[skeleton.neighbors]).norm(dim=-1)[..., None]
    return ((apart - rest) / rest.mean()).square().mean()


def unsteadiness_loss(steps: Float[Tensor, "node knot 3"]) -> Float[Tensor, ""]:
    """How much the paths bend: squares of the changes of their steps, in world units per knot, times the knots."""
    return steps.shape[1] * steps.diff(dim=1).square().mean()
