"""The transformer: pre-norm blocks of full self-attention and a GELU MLP, without biases and positions."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lrm4d.reconstruction.attention import SelfAttention


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, head_width: int, mlp_ratio: int, qk_norm: bool):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = SelfAttention(width, head_width, qk_norm)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_ratio * width, bias=False), nn.GELU(), nn.Linear(mlp_ratio * width, width, bias=False)
        )

    def forward(self, tokens: Float[Tensor, "token width"], lengths: list[int]) -> Float[Tensor, "token width"]:
        """Transform packed tokens; `lengths` are the scenes' numbers of tokens."""
        tokens = tokens + self.attention(self.attention_norm(tokens), lengths)
        return tokens + self.mlp(self.mlp_norm(tokens))


class Transformer(nn.Module):
    """LayerNorm, the blocks, LayerNorm (4D-LRM, arXiv 2506.18890)."""

    def __init__(self, width: int, layers: int, head_width: int, mlp_ratio: int, qk_norm: bool):
        super().__init__()
        self.input_norm = nn.LayerNorm(width, bias=False)
        self.blocks = nn.ModuleList(Block(width, head_width, mlp_ratio, qk_norm) for _ in range(layers))
        self.output_norm = nn.LayerNorm(width, bias=False)
        self.checkpoint_activations = False
        # Residual branches start small, so that the sum of all layers starts with unit scale (GPT-2).
        for block in self.blocks:
            for layer in (block.attention.to_out, block.mlp[2]):
                nn.init.normal_(layer.weight, std=0.02 / (2 * layers) ** 0.5)
            for layer in (block.attention.to_qkv, block.mlp[0]):
                nn.init.normal_(layer.weight, std=0.02)

    def forward(self, tokens: Float[Tensor, "token width"], lengths: list[int]) -> Float[Tensor, "token width"]:
        """Transform packed tokens; `lengths` are the scenes' numbers of tokens."""
        tokens = self.input_norm(tokens)
        for block in self.blocks:
            if self.checkpoint_activations and self.training:
                tokens = checkpoint(block, tokens, lengths, use_reentrant=False)
            else:
                tokens = block(tokens, lengths)
        return self.output_norm(tokens)
