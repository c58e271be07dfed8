"""Attention between a few tokens and many image tokens, arranged so that little is computed per image token.

I images, P prompts of an image (1 where prompts share it), T tokens, L = h*w image tokens, C channels, H heads,
d = head width, D = H*d. Weights are stored as they multiply from the right, (in, out), unless said otherwise.

Three identities carry the work. A softmax does not see what is added to a whole row, so a key's bias drops out. Its
rows sum to 1, so a value's bias passes through as a constant and any constant may be added to the values instead of
to the result. And a projection next to a product may be moved to the other factor (`absorbed`): it then works on H*T
rows and not on L.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samdec_export.models.sam.common import constant, linear, split
from samdec_export.models.sam.transformer import Attention

__all__ = ["ImageToToken", "SelfAttention", "TokenToImage"]


class SelfAttention(nn.Module):
    """Tokens attend to tokens, (I, P, T, C) each; the scale of the scores is folded into the queries."""

    def __init__(self, source: Attention) -> None:
        super().__init__()
        self.num_heads = source.num_heads
        like = source.q_proj.weight
        scale = (like.shape[0] // self.num_heads) ** -0.5
        (query, query_bias), (value, value_bias) = linear(source.q_proj), linear(source.v_proj)
        out, out_bias = linear(source.out_proj)
        self.query, self.query_bias = constant(query * scale, like), constant(query_bias * scale, like)
        self.key, self.value = constant(linear(source.k_proj)[0], like), constant(value, like)
        self.out, self.out_bias = constant(out, like), constant(value_bias @ out + out_bias, like)

    def forward(self, positioned: Tensor, tokens: Tensor) -> Tensor:
        """Attend with queries and keys from `positioned` and values from `tokens`."""
        query = self._heads(positioned @ self.query + self.query_bias)  # (I, P, H, T, d)
        key, value = self._heads(positioned @ self.key), self._heads(tokens @ self.value)  # (I, P, H, T, d)
        mixed = (query @ key.mT).softmax(dim=-1) @ value  # (I, P, H, T, d)
        out: Tensor = mixed.transpose(2, 3).flatten(3) @ self.out + self.out_bias  # (I, P, T, C)
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return split(x, -1, self.num_heads, -1).transpose(2, 3)  # (I, P, T, D) -> (I, P, H, T, d)


class _CrossAttention(nn.Module):
    """What both directions share: the token side is spread over heads so that heads become rows of one product."""

    head_mask: Tensor

    def __init__(self, source: Attention) -> None:
        super().__init__()
        self.num_heads, width = source.num_heads, source.q_proj.out_features
        owner = torch.arange(width) // (width // self.num_heads)  # (D,) the head of each inner channel
        mask = (owner == torch.arange(self.num_heads)[:, None]).to(source.q_proj.weight.dtype)  # (H, D)
        self.register_buffer("head_mask", mask[:, None], persistent=False)  # (H, 1, D)

    def spread(self, x: Tensor) -> Tensor:
        """Make a row per head, zero outside that head's channels: (I, P, T, D) -> (I, P, H*T, D)."""
        return (x.unsqueeze(2) * self.head_mask).flatten(2, 3)  # (I, P, H, T, D) -> (I, P, H*T, D)

    def channels(self, x: Tensor) -> Tensor:
        """Give each head its channels: (I, P, D, L) -> (I, P, H, d, L)."""
        return split(x, 2, self.num_heads, -1)


class TokenToImage(_CrossAttention):
    """Tokens attend to the image."""

    def __init__(self, source: Attention) -> None:
        super().__init__(source)
        like = source.q_proj.weight
        scale = (like.shape[0] // self.num_heads) ** -0.5
        (query, query_bias), (value, value_bias) = linear(source.q_proj), linear(source.v_proj)
        out, out_bias = linear(source.out_proj)
        self.query, self.query_bias = constant(query * scale, like), constant(query_bias * scale, like)
        self.key = constant(linear(source.k_proj)[0].T, like)  # (D, C)
        self.value = constant(value, like)
        self.out, self.out_bias = constant(out, like), constant(value_bias @ out + out_bias, like)

    def absorbed(self, tokens: Tensor, keys: Tensor, positioned: Tensor) -> Tensor:
        """Attend without forming keys or values, from tokens (I, P, T, C) with their positions.

        `keys` are image tokens (I, P or 1, L, C), `positioned` the same with their positions.
        """
        rows = self.spread(tokens @ self.query + self.query_bias) @ self.key  # (I, P, H*T, C)
        weights = (rows @ positioned.mT).softmax(dim=-1)  # (I, P, H*T, L)
        mixed = split(weights @ keys @ self.value, 2, self.num_heads, -1)  # (I, P, H, T, D)
        mixed = (mixed * self.head_mask).sum(dim=2)  # each head's channels from its own row: one term, exact
        return mixed @ self.out + self.out_bias

    def plain(self, tokens: Tensor, keys: Tensor, positioned: Tensor) -> Tensor:
        """Attend as `absorbed` does, with image tokens that come as (I, P, C, L) and are projected."""
        key = self.channels(self.key @ positioned)  # (I, P, H, d, L)
        value = self.channels(self.value.mT @ keys)  # (I, P, H, d, L)
        query = split(tokens @ self.query + self.query_bias, -1, self.num_heads, -1)  # (I, P, T, H, d)
        weights = (query.transpose(2, 3) @ key).softmax(dim=-1)  # (I, P, H, T, L)
        mixed = (weights @ value.mT).transpose(2, 3).flatten(3)  # (I, P, T, D)
        return mixed @ self.out + self.out_bias


class ImageToToken(_CrossAttention):
    """The image attends to tokens.

    Weights stay (H, T, L), image tokens last: the softmax over T is then vectorised over L, where rows of T numbers
    would each pay the overhead of a row.
    """

    def __init__(self, source: Attention) -> None:
        super().__init__(source)
        like = source.q_proj.weight
        scale = (like.shape[0] // self.num_heads) ** -0.5
        (query, query_bias), (value, value_bias) = linear(source.q_proj), linear(source.v_proj)
        (key, key_bias), (out, out_bias) = linear(source.k_proj), linear(source.out_proj)
        self.query = constant(query.T, like)  # (D, C)
        self.query_bias = constant(query_bias[:, None], like)  # (D, 1)
        self.key, self.key_bias = constant(key * scale, like), constant(key_bias * scale, like)
        self.value, self.out = constant(value, like), constant(out, like)
        self.out_bias = constant((value_bias @ out + out_bias) / self.num_heads, like)

    def absorbed(self, positioned_tokens: Tensor, tokens: Tensor, positioned: Tensor) -> Tensor:
        """Attend without forming queries, from image tokens with their positions (I, P or 1, L, C).

        Tokens (I, P, T, C) come with and without positions. Returns what is to be added to image tokens, (I, P, L, C).
        """
        key = self.spread(positioned_tokens @ self.key + self.key_bias)  # (I, P, H*T, D)
        scores = (key @ self.query) @ positioned.mT + key @ self.query_bias  # (I, P, H*T, L)
        return self._mix(split(scores, 2, self.num_heads, -1), tokens)

    def plain(self, positioned_tokens: Tensor, tokens: Tensor, positioned: Tensor) -> Tensor:
        """Attend as `absorbed` does, with image tokens that come as (I, P or 1, C, L) and are projected."""
        images, image_prompts = positioned.shape[:2]
        query = self.channels(self.query @ positioned + self.query_bias)  # (I, P or 1, H, d, L)
        key = positioned_tokens @ self.key + self.key_bias  # (I, P, T, D)
        rows = key.reshape(images, image_prompts, -1, self.num_heads, query.shape[3]).transpose(2, 3)
        scores = rows @ query  # (I, P, H, T, L), or (I, 1, H, P*T, L) where prompts share the image
        prompts, count = tokens.shape[1:3]
        scores = split(scores, 3, -1, count).transpose(2, 3)  # (I, P or 1, 1 or P, H, T, L)
        return self._mix(scores.reshape(images, prompts, self.num_heads, count, -1), tokens)

    def _mix(self, scores: Tensor, tokens: Tensor) -> Tensor:
        """Mix tokens by scores: (I, P, H, T, L) and (I, P, T, C) -> (I, P, L, C)."""
        value = self.spread(tokens @ self.value) @ self.out + self.out_bias  # (I, P, H*T, C)
        exps = (scores - scores.amax(dim=3, keepdim=True)).exp()  # (I, P, H, T, L)
        weights = exps / exps.sum(dim=3, keepdim=True)
        return weights.flatten(2, 3).mT @ value
