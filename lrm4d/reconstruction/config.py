"""What defines a reconstruction network; the four named sizes."""

from dataclasses import dataclass, replace

from lrm4d.reconstruction.evidence import TIME_WIDTHS


@dataclass(frozen=True)
class ModelConfig:
    """The network's shape and its switches. The defaults are the paper's (4D-LRM, arXiv 2506.18890), size base.

    width, layers, head_width, mlp_ratio, patch: the transformer; width is a multiple of head_width, patch in pixels.
    qk_norm: normalize queries and keys (stability at large learning rates).
    skip_empty: empty patches become no tokens and no Gaussians.
    free_gaussians: learned tokens with one Gaussian each, bound to no pixel.
    near, far: distances that a Gaussian may take along its ray; None takes the ray's span in the unit sphere.
    residual_start: colour, time, size, opacity and (with evidence) distance start from what the pixel itself says,
    the network adds to them; pixels without alpha then make no Gaussian.
    start_scale, start_duration: where Gaussians start, standard deviations in pixel footprints and model time (one
    of 24 frames is 0.087).
    free_times: Gaussians choose the middle of their time; without, it is their frame's.
    exits: every pixel makes a second Gaussian where its ray leaves the object: from behind, nothing is missing.
    evidence_distances: steps along each ray at which the other views are asked whether they agree; 0 turns it off.
    evidence_widths: standard deviations (model time) of three weightings of the evidence by nearness in time; 0: none.
    evidence_features: channels a pixel that the tokenizer gets from the matching along its ray.
    second_look: places around each Gaussian at which the views are asked again, with its motion; odd, 0 turns it off.
    second_look_step: their distance from one another along the ray, world units.
    third_look_step: the same for a third look, after the second, at as many places; 0 turns it off.
    low_pass, compensate: how the Gaussians are rasterized, see `rasterize`.
    """

    width: int = 768
    layers: int = 12
    head_width: int = 64
    mlp_ratio: int = 4
    patch: int = 8
    qk_norm: bool = True
    skip_empty: bool = True
    free_gaussians: int = 0
    near: float | None = 0.1
    far: float | None = 4.5
    residual_start: bool = False
    start_scale: float = 0.6
    start_duration: float = 0.3
    free_times: bool = True
    exits: bool = False
    evidence_distances: int = 0
    evidence_widths: tuple[float, float, float] = TIME_WIDTHS
    evidence_features: int = 16
    second_look: int = 0
    second_look_step: float = 0.03
    third_look_step: float = 0.0
    low_pass: float = 0.3
    compensate: bool = False

    @property
    def surfaces(self) -> int:
        """Gaussians a pixel."""
        return 2 if self.exits else 1

    def __post_init__(self) -> None:
        if self.width % self.head_width:
            raise ValueError(f"width {self.width} is not a multiple of head_width {self.head_width}.")
        if (self.near is None) != (self.far is None):
            raise ValueError(f"near {self.near} and far {self.far}: give both or neither.")
        if self.evidence_distances and not (self.residual_start and self.near is None):
            raise ValueError("evidence_distances needs residual_start and near = far = null (the sphere's span).")
        if self.exits and not self.evidence_distances:
            raise ValueError("exits needs evidence_distances: exits are found as distances along the rays are.")
        if self.second_look and not (self.evidence_distances and self.second_look % 2):
            raise ValueError(f"second_look {self.second_look} must be odd, and needs evidence_distances.")
        if self.third_look_step and not self.second_look:
            raise ValueError(f"third_look_step {self.third_look_step} needs second_look, a number of places.")


_SMALL_BUDGET = ModelConfig(
    near=None,
    far=None,
    residual_start=True,
    start_scale=0.35,
    start_duration=0.1,
    exits=True,
    evidence_distances=48,
    second_look=9,
    low_pass=0.1,
)

CONFIGS: dict[str, ModelConfig] = {
    "nano": replace(_SMALL_BUDGET, width=256, layers=8),
    "small": replace(_SMALL_BUDGET, width=256, layers=12, third_look_step=0.012),
    "base": ModelConfig(width=768, layers=12),
    "large": ModelConfig(width=1024, layers=24),
}
"""The named sizes: `nano` and `small` with all that helps a small training budget, the others as the paper's."""
