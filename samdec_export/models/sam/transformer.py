"""The two-way transformer: prompt tokens and image tokens attend to each other.

B prompts, T tokens (output tokens and prompt points), L = h*w image tokens, C channels, H heads, d = head width.
Source: segment-anything `modeling/transformer.py`; names of modules and parameters are those of its checkpoints.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from samdec_export.models.sam.common import MLPBlock

__all__ = ["Attention", "TwoWayAttentionBlock", "TwoWayTransformer"]

DOWNSAMPLE = 2
"""By how much attention to and from the image is narrower than the embeddings."""


class Attention(nn.Module):
    """Multi-head attention in the channels of its input or fewer; ValueError: `num_heads` does not divide them."""

    def __init__(self, embedding_dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        self.num_heads = num_heads
        internal_dim = embedding_dim // downsample_rate
        if internal_dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide {internal_dim} channels")
        self.q_proj = nn.Linear(embedding_dim, internal_dim)
        self.k_proj = nn.Linear(embedding_dim, internal_dim)
        self.v_proj = nn.Linear(embedding_dim, internal_dim)
        self.out_proj = nn.Linear(internal_dim, embedding_dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from `q` (B, N, C) to `k` and `v` (B, S, C); returns (B, N, C)."""
        q = self._separate_heads(self.q_proj(q))  # (B, H, N, d)
        k = self._separate_heads(self.k_proj(k))  # (B, H, S, d)
        v = self._separate_heads(self.v_proj(v))  # (B, H, S, d)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, N, S)
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)  # (B, N, H*d)
        out: Tensor = self.out_proj(mixed)
        return out

    def _separate_heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1))  # (B, N, H*d) -> (B, N, H, d)
        return heads.transpose(1, 2)  # (B, H, N, d)


class TwoWayAttentionBlock(nn.Module):
    """Tokens to tokens, tokens to image, MLP, image to tokens; a LayerNorm after each."""

    def __init__(self, embedding_dim: int, num_heads: int, mlp_dim: int, skip_first_layer_pe: bool) -> None:
        super().__init__()
        self.self_attn = Attention(embedding_dim, num_heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.cross_attn_token_to_image = Attention(embedding_dim, num_heads, DOWNSAMPLE)
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.mlp = MLPBlock(embedding_dim, mlp_dim)
        self.norm3 = nn.LayerNorm(embedding_dim)
        self.norm4 = nn.LayerNorm(embedding_dim)
        self.cross_attn_image_to_token = Attention(embedding_dim, num_heads, DOWNSAMPLE)
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Update tokens (B, T, C) and image tokens (B, L, C); `key_pe` (1, L, C) is shared by the batch."""
        if self.skip_first_layer_pe:
            queries = self.self_attn(q=queries, k=queries, v=queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q=q, k=q, v=queries)
        queries = self.norm1(queries)
        k = keys + key_pe
        queries = queries + self.cross_attn_token_to_image(q=queries + query_pe, k=k, v=keys)
        queries = self.norm2(queries)
        queries = self.norm3(queries + self.mlp(queries))
        keys = keys + self.cross_attn_image_to_token(q=k, k=queries + query_pe, v=queries)
        return queries, self.norm4(keys)


class TwoWayTransformer(nn.Module):
    """Blocks of two-way attention and a last look of the tokens at the image."""

    def __init__(self, depth: int, embedding_dim: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(embedding_dim, num_heads, mlp_dim, skip_first_layer_pe=index == 0)
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(embedding_dim, num_heads, DOWNSAMPLE)
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    def forward(self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T, C) and image tokens (B, L, C), of an image (B, C, h, w) with encoding (1, C, h, w)."""
        keys = image_embedding.flatten(2).transpose(1, 2)  # (B, L, C)
        key_pe = image_pe.flatten(2).transpose(1, 2)  # (1, L, C)
        queries = point_embedding
        for layer in self.layers:
            queries, keys = layer(queries, keys, query_pe=point_embedding, key_pe=key_pe)
        attended = self.final_attn_token_to_image(q=queries + point_embedding, k=keys + key_pe, v=keys)
        return self.norm_final_attn(queries + attended), keys
