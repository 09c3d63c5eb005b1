"""What lies where in the sequence of a video diffusion transformer, and what follows from it.

SEE4D, EasyCreator and Full-4D pack different pictures into one sequence. A TokenLayout says which; rotary positions,
the noise level of every token and the attention mask follow from it, so none of them is written twice.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

ROLES = ("source", "warp", "context", "target")
"""The input video; a target's warp on the frame axis; pictures that are finished already; what is to be made."""


@dataclass(frozen=True)
class Slot:
    """One latent frame: of which view, at which time (index of the latent frame), and what for."""

    view: int
    time: int
    role: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"a slot of the role {self.role!r}: expected one of {', '.join(ROLES)}.")
        if self.time < 0:
            raise ValueError(f"a slot at time {self.time}: times are indices of latent frames, from 0.")

    @property
    def target(self) -> bool:
        """Whether this frame is to be made; all others are given."""
        return self.role == "target"

    @property
    def clean(self) -> bool:
        """Whether this is a true or finished picture, without holes and without noise."""
        return self.role in ("source", "context")


Rule = Callable[[Slot, Slot], bool]

RULES: dict[str, Rule] = {
    "full": lambda query, key: True,
    "fused": lambda query, key: (
        query.view == key.view
        or (query.time == key.time and (query.target == key.target or (query.target and key.clean)))
    ),
}
"""Which slot (query) may attend to which (key).

fused: Full-4D's time-view attention (arXiv 2605.25500). A token attends to its own view; to its own time among the
slots of its own half (targets, or what is given); and, across the halves, a target to the given clean picture of its
time, which in Full-4D is the projection in the source view.
"""


@dataclass(frozen=True)
class TokenLayout:
    """The latent frames of one sequence, each of rows x columns tokens (row by row), and who attends to whom.

    Plans make layouts of pictures, one token each; a network resizes them to its tokens.
    rule: a name in RULES. ValueError on an empty layout, a slot that comes twice, or an unknown rule.
    """

    slots: tuple[Slot, ...]
    rows: int = 1
    columns: int = 1
    rule: str = "full"

    def __post_init__(self) -> None:
        if not self.slots or len(set(self.slots)) < len(self.slots):
            twice = sorted({str(slot) for slot in self.slots if self.slots.count(slot) > 1})
            raise ValueError(f"a layout needs slots, each once; got {len(self.slots)}, twice: {', '.join(twice)}.")
        if self.rule not in RULES:
            raise ValueError(f"no attention rule called {self.rule!r}: there are {', '.join(RULES)}.")

    @property
    def tokens_per_slot(self) -> int:
        """rows * columns."""
        return self.rows * self.columns

    @property
    def targets(self) -> list[int]:
        """Which slots are to be made, in order."""
        return [index for index, slot in enumerate(self.slots) if slot.target]

    def with_warp_slots(self) -> "TokenLayout":
        """The same and, at the end, one warp slot for each target: Full-4D's [target | projection] on the frame axis.

        Without, a target's warp goes in as channels of its own tokens (SEE4D), which halves the sequence.
        """
        warps = tuple(replace(slot, role="warp") for slot in self.slots if slot.target)
        return replace(self, slots=self.slots + warps)

    def resize(self, rows: int, columns: int) -> "TokenLayout":
        """The same slots with this many tokens each."""
        return replace(self, rows=rows, columns=columns)

    @property
    def shown(self) -> list[Slot]:
        """The slots that are no warp slots: one picture is given for each."""
        return [slot for slot in self.slots if slot.role != "warp"]

    def pictures(self) -> list[int]:
        """For each slot, which of the pictures given for `shown` it shows: a warp slot shows the one given for its
        target, which is the target's warp. ValueError if a warp slot has no target."""
        shown = self.shown
        target_at = {(slot.view, slot.time): index for index, slot in enumerate(shown) if slot.target}
        index_of = {slot: index for index, slot in enumerate(shown)}
        lonely = [slot for slot in self.slots if slot.role == "warp" and (slot.view, slot.time) not in target_at]
        if lonely:
            raise ValueError(
                f"{lonely[0]} has no target of its view and time in the layout; add one, or leave it out."
            )
        return [target_at[slot.view, slot.time] if slot.role == "warp" else index_of[slot] for slot in self.slots]

    def warps_apart(self) -> Bool[Tensor, "slot"]:
        """Whether a slot's warp lies in a slot of its own, so that it is not needed as channels too."""
        warps = {(slot.view, slot.time) for slot in self.slots if slot.role == "warp"}
        return torch.tensor([slot.target and (slot.view, slot.time) in warps for slot in self.slots])

    def roles(self) -> Float[Tensor, "slot role"]:
        """One-hot roles, in the order of ROLES."""
        return torch.eye(len(ROLES))[[ROLES.index(slot.role) for slot in self.slots]]

    def positions(self) -> Int[Tensor, "token 3"]:
        """Rotary positions (time, row, column). Slots of one time share them; cameras and roles tell them apart."""
        times = torch.tensor([slot.time for slot in self.slots])
        grid = torch.meshgrid(times, torch.arange(self.rows), torch.arange(self.columns), indexing="ij")
        return torch.stack(grid, dim=-1).reshape(-1, 3)

    def noise_levels(
        self, target: Float[Tensor, "batch"], warp: Float[Tensor, "batch slot"]
    ) -> Float[Tensor, "batch slot"]:
        """Noise levels in [0, 1]: the targets' own, the given one for warp slots, 0 for source and context."""
        is_target = torch.tensor([slot.target for slot in self.slots], device=target.device)
        is_warp = torch.tensor([slot.role == "warp" for slot in self.slots], device=target.device)
        return target[:, None] * is_target + warp * is_warp

    def per_token(self, values: Float[Tensor, "batch slot"]) -> Float[Tensor, "batch token"]:
        """A slot's value for each of its tokens."""
        return values.repeat_interleave(self.tokens_per_slot, dim=1)

    def slot_mask(self) -> Bool[Tensor, "slot slot"]:
        """Row attends to column."""
        rule = RULES[self.rule]
        return torch.tensor([[rule(query, key) for key in self.slots] for query in self.slots])


def dense_mask(layout: TokenLayout) -> Bool[Tensor, "token token"]:
    """Row attends to column, token by token."""
    size = layout.tokens_per_slot
    return layout.slot_mask().repeat_interleave(size, dim=0).repeat_interleave(size, dim=1)


def mask_function(layout: TokenLayout, device: torch.device) -> Callable[..., Tensor]:
    """The same as FlexAttention's mask_mod(batch, head, query, key) -> bool of token indices."""
    mask, size = layout.slot_mask().to(device), layout.tokens_per_slot
    return lambda batch, head, query, key: mask[query // size, key // size]


@lru_cache(maxsize=8)
def attention_mask(layout: TokenLayout, device: torch.device) -> Tensor | BlockMask | None:
    """What attention over the layout's tokens takes: None where all attend to all (the kernels are faster without),
    a FlexAttention block mask on CUDA, whose empty blocks cost nothing, and else a dense mask [token, token]."""
    if bool(layout.slot_mask().all()):
        return None
    if device.type != "cuda":
        return dense_mask(layout).to(device)
    tokens = len(layout.slots) * layout.tokens_per_slot
    return create_block_mask(mask_function(layout, device), None, None, tokens, tokens, device=device)
