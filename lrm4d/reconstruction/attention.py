"""Self-attention within scenes whose tokens lie end to end in one sequence."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import rms_norm, scaled_dot_product_attention

try:
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask
except ImportError:
    memory_efficient_attention = None


def attend_by_sdpa(
    queries: Float[Tensor, "token head channel"],
    keys: Float[Tensor, "token head channel"],
    values: Float[Tensor, "token head channel"],
    lengths: list[int],
) -> Float[Tensor, "token head channel"]:
    """Full attention inside each of the consecutive runs of `lengths` tokens, one call a run."""
    runs = zip(*(x.transpose(0, 1).split(lengths, dim=1) for x in (queries, keys, values)), strict=True)
    mixed = [scaled_dot_product_attention(q[None], k[None], v[None])[0] for q, k, v in runs if q.shape[1]]
    return torch.cat(mixed, dim=1).transpose(0, 1) if mixed else values


def attend_by_xformers(
    queries: Float[Tensor, "token head channel"],
    keys: Float[Tensor, "token head channel"],
    values: Float[Tensor, "token head channel"],
    lengths: list[int],
) -> Float[Tensor, "token head channel"]:
    """The same on CUDA in one call, with xformers' block-diagonal bias."""
    bias = BlockDiagonalMask.from_seqlens([length for length in lengths if length])
    return memory_efficient_attention(queries[None], keys[None], values[None], attn_bias=bias)[0]


@functools.cache
def xformers_works() -> bool:
    """Whether xformers is there and was built for this PyTorch: if not, it only says so when it is asked."""
    if memory_efficient_attention is None:
        return False
    try:
        attend_by_xformers(*torch.zeros(3, 8, 1, 32, device="cuda"), [8])
    except NotImplementedError:
        return False
    return True


def attend_by_flash(
    queries: Float[Tensor, "token head channel"],
    keys: Float[Tensor, "token head channel"],
    values: Float[Tensor, "token head channel"],
    lengths: list[int],
) -> Float[Tensor, "token head channel"]:
    """The same on CUDA in one call, in half precision, with PyTorch's own FlashAttention for runs of any length."""
    starts = _starts_of_runs(tuple(lengths), queries.device)
    return varlen_attn(queries, keys, values, starts, starts, max(lengths), max(lengths))


@functools.lru_cache(maxsize=4)
def _starts_of_runs(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """Where each run begins and the last one ends; every layer asks for the same, and copying to a device waits."""
    return torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)


def attend(
    queries: Float[Tensor, "token head channel"],
    keys: Float[Tensor, "token head channel"],
    values: Float[Tensor, "token head channel"],
    lengths: list[int],
) -> Float[Tensor, "token head channel"]:
    """Attention within scenes by the fastest way there is on this device."""
    if queries.is_cuda and any(lengths):
        if queries.dtype in (torch.bfloat16, torch.float16):
            return attend_by_flash(queries, keys, values, lengths)
        if xformers_works():
            return attend_by_xformers(queries, keys, values, lengths)
    return attend_by_sdpa(queries, keys, values, lengths)


class SelfAttention(nn.Module):
    """Multi-head self-attention over packed tokens, without biases."""

    def __init__(self, width: int, head_width: int, qk_norm: bool):
        super().__init__()
        self.head_width = head_width
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)
        self.query_scale = nn.Parameter(torch.ones(head_width)) if qk_norm else None
        self.key_scale = nn.Parameter(torch.ones(head_width)) if qk_norm else None

    def forward(self, tokens: Float[Tensor, "token width"], lengths: list[int]) -> Float[Tensor, "token width"]:
        """Mix the tokens of each scene; `lengths` are the scenes' numbers of tokens, in order."""
        queries, keys, values = self.to_qkv(tokens).unflatten(-1, (3, -1, self.head_width)).unbind(-3)
        if self.query_scale is not None:
            queries = rms_norm(queries, (self.head_width,), self.query_scale.to(queries)).to(values)
            keys = rms_norm(keys, (self.head_width,), self.key_scale.to(keys)).to(values)
        return self.to_out(attend(queries, keys, values, lengths).flatten(-2))
