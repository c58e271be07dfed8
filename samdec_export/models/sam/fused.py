"""The mask decoder rearranged for inference: the same function, less work.

I images, P prompts of an image, N points, T tokens (1 for quality, M_all for masks, N), M masks asked for,
L = h*w image tokens, C channels. The plain definition is `mask_decoder.py`; the algebra is in `fused_attention.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from samdec_export.core.options import MasksMode
from samdec_export.models.sam.common import MLP, best_mask, constant, linear
from samdec_export.models.sam.fused_attention import ImageToToken, SelfAttention, TokenToImage
from samdec_export.models.sam.fused_upscaling import Head, Hypernetworks, Upscaling
from samdec_export.models.sam.mask_decoder import MaskDecoder
from samdec_export.models.sam.transformer import TwoWayAttentionBlock

__all__ = ["Form", "Forms", "FusedMaskDecoder", "choose_forms"]

Form: TypeAlias = Literal["shared", "absorbed", "plain"]
"""`plain` projects every image token, `shared` does so once for all prompts of an image, `absorbed` never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """How each attention that touches the image is computed. Same function, different work.

    `first` is for the first layer, `others` for the layers behind it, `last` for the look at the image after them.
    """

    first: Form
    others: Form
    last: Form
    reasons: tuple[str, ...] = ()


def choose_forms(decoder: MaskDecoder, *, masks: MasksMode, points: int, prompts: int, shared: bool) -> Forms:
    """Return the forms that cost least for so many points of a prompt and prompts of an image: the `opt` of the axes.

    With `shared`, the mask prompt is one constant: the first layer sees the same image tokens for every prompt.
    """
    attention = decoder.transformer.final_attn_token_to_image
    heads, channels, inner_width = attention.num_heads, attention.q_proj.in_features, attention.q_proj.out_features
    chosen = _chosen(decoder, masks)
    tokens, last_tokens = 1 + decoder.num_mask_tokens + points, 1 + chosen.stop - chosen.start

    def cheaper(rows: int, where: str) -> tuple[Form, str]:
        absorbed = heads * rows < inner_width
        relation = "<" if absorbed else ">="
        form: Form = "absorbed" if absorbed else "plain"
        return form, f"{where}: {form}, {heads} heads x {rows} tokens {relation} {inner_width} inner channels"

    others, others_reason = cheaper(tokens, "other layers")
    last, last_reason = cheaper(last_tokens, "last attention")
    first, first_reason = cheaper(tokens, "first layer")
    # Multiply-adds for each image token: the projections once and their use by each prompt, or absorbed products.
    once, use, absorbed = channels * inner_width, tokens * inner_width, heads * tokens * channels
    if shared and once + prompts * use < prompts * absorbed:
        first = "shared"
        first_reason = f"first layer: shared, {once} + {prompts} prompts x {use} < {prompts} x {absorbed} per token"
    return Forms(first=first, others=others, last=last, reasons=(first_reason, others_reason, last_reason))


class FusedMaskDecoder(nn.Module):
    """A copy of a loaded `MaskDecoder`, its weights rearranged once, in float64, for the masks that are wanted."""

    def __init__(self, decoder: MaskDecoder, *, masks: MasksMode, forms: Forms) -> None:
        super().__init__()
        transformer, chosen = decoder.transformer, _chosen(decoder, masks)
        like = decoder.iou_token.weight
        self.masks, self.forms = masks, forms
        self.first_mask, self.num_masks = chosen.start, chosen.stop - chosen.start
        self.output_tokens = constant(torch.cat([like, decoder.mask_tokens.weight]), like)  # (1+M_all, C)
        self.layers = nn.ModuleList(
            _Layer(cast("TwoWayAttentionBlock", layer), forms.others if number else forms.first)
            for number, layer in enumerate(transformer.layers)
        )
        self.last = TokenToImage(transformer.final_attn_token_to_image)
        self.last_norm = _copy_norm(transformer.norm_final_attn)
        self.quality = Head(decoder.iou_prediction_head, chosen)
        self.hypernetworks = Hypernetworks([cast("MLP", mlp) for mlp in decoder.output_hypernetworks_mlps[chosen]])
        self.upscaling = Upscaling(decoder.output_upscaling)
        self.eval()

    def forward(self, image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> tuple[Tensor, Tensor]:
        """Decode, as `Arrangement` says; ValueError: prompts bring masks of their own to a shared first layer."""
        if self.forms.first == "shared" and dense.shape[1] != 1:
            raise ValueError("a shared first layer needs one mask embedding for all prompts of an image")
        height, width = image.shape[-2:]
        output = self.output_tokens.expand(*sparse.shape[:2], -1, -1)  # (I, P, 1+M_all, C)
        tokens = torch.cat([output, sparse], dim=2)  # (I, P, T, C)
        source = (image.unsqueeze(1) + dense).flatten(3)  # (I, P or 1, C, L)
        position = image_pe.flatten(2).unsqueeze(1)  # (1, 1, C, L)
        queries, keys = tokens, source.mT  # (I, P, T, C), (I, P or 1, L, C)
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, position.mT)
        read = self._read(queries, tokens, keys, position.mT)  # (I, P, 1+M, C)
        iou = self.quality(read[:, :, 0])  # (I, P, M)
        hyper = self.hypernetworks(read[:, :, 1:])  # (I, P, M, F)
        if self.masks == "best":
            best = best_mask(iou, sparse.shape[2])  # (I, P, 1)
            rows = best.unsqueeze(-1).expand(-1, -1, -1, hyper.shape[-1])  # (I, P, 1, F)
            hyper, iou = hyper.gather(2, rows), iou.gather(2, best)  # (I, P, 1, F), (I, P, 1)
        return self.upscaling(keys, hyper, height, width), iou

    def _read(self, queries: Tensor, tokens: Tensor, keys: Tensor, position: Tensor) -> Tensor:
        """Look at the image for the last time, by the tokens that are read afterwards only: (I, P, 1+M, C)."""
        queries, tokens = self._wanted(queries), self._wanted(tokens)  # (I, P, 1+M, C)
        attended = _attend(self.last, self.forms.last, queries + tokens, keys, keys + position)
        out: Tensor = self.last_norm(queries + attended)
        return out

    def _wanted(self, tokens: Tensor) -> Tensor:
        """Pick the tokens that are read: (I, P, T, C) -> (I, P, 1+M, C)."""
        first = 1 + self.first_mask
        if first == 1:
            return tokens[:, :, : 1 + self.num_masks]
        return torch.cat([tokens[:, :, :1], tokens[:, :, first : first + self.num_masks]], dim=2)


class _Layer(nn.Module):
    """A block of two-way attention."""

    def __init__(self, source: TwoWayAttentionBlock, form: Form) -> None:
        super().__init__()
        like = source.mlp.lin1.weight
        self.form, self.skip_first_layer_pe = form, source.skip_first_layer_pe
        self.self_attention = SelfAttention(source.self_attn)
        self.token_to_image = TokenToImage(source.cross_attn_token_to_image)
        self.image_to_token = ImageToToken(source.cross_attn_image_to_token)
        self.norms = nn.ModuleList(map(_copy_norm, (source.norm1, source.norm2, source.norm3, source.norm4)))
        (up, up_bias), (down, down_bias) = linear(source.mlp.lin1), linear(source.mlp.lin2)
        self.up, self.up_bias = constant(up, like), constant(up_bias, like)
        self.down, self.down_bias = constant(down, like), constant(down_bias, like)

    def forward(self, queries: Tensor, keys: Tensor, tokens: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Update tokens (I, P, T, C) and image tokens (I, P or 1, L, C) -> (I, P, L, C)."""
        norm1, norm2, norm3, norm4 = self.norms
        if self.skip_first_layer_pe:
            queries = norm1(self.self_attention(queries, queries))
        else:
            queries = norm1(queries + self.self_attention(queries + tokens, queries))
        positioned = keys + position  # (I, P or 1, L, C)
        queries = norm2(queries + _attend(self.token_to_image, self.form, queries + tokens, keys, positioned))
        hidden = F.relu(queries @ self.up + self.up_bias)
        queries = norm3(queries + (hidden @ self.down + self.down_bias))
        respond = self.image_to_token.absorbed if self.form == "absorbed" else self.image_to_token.plain
        sources = positioned if self.form == "absorbed" else positioned.mT
        return queries, norm4(keys + respond(queries + tokens, queries, sources))


def _attend(attention: TokenToImage, form: Form, tokens: Tensor, keys: Tensor, positioned: Tensor) -> Tensor:
    """Let tokens (I, P, T, C) look at image tokens (I, P or 1, L, C); returns (I, P, T, C)."""
    match form:
        case "absorbed":
            return attention.absorbed(tokens, keys, positioned)
        case "plain":
            return attention.plain(tokens, keys.mT, positioned.mT)
        case "shared":
            every = tokens.flatten(1, 2).unsqueeze(1)  # (I, 1, P*T, C)
            return attention.plain(every, keys.mT, positioned.mT).reshape(tokens.shape)


def _chosen(decoder: MaskDecoder, masks: MasksMode) -> slice:
    """Return the masks to compute; `best` needs the quality of each."""
    total = decoder.num_mask_tokens
    return {"multi": slice(1, total), "single": slice(0, 1)}.get(masks, slice(0, total))


def _copy_norm(source: nn.LayerNorm) -> nn.LayerNorm:
    norm = nn.LayerNorm(source.normalized_shape, eps=source.eps, dtype=source.weight.dtype)
    norm.load_state_dict(source.state_dict())
    return norm.requires_grad_(False)
