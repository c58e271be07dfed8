"""A prompt encoder and a mask decoder together: what a checkpoint is loaded into."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from samdec_export.models.registry import Architecture
from samdec_export.models.sam.mask_decoder import MaskDecoder
from samdec_export.models.sam.prompt_encoder import PromptEncoder

__all__ = ["SamDecoder", "seed_weights"]


class SamDecoder(nn.Module):
    """The part of a Segment Anything model behind its image encoder, named as in the published checkpoints."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.prompt_encoder = PromptEncoder(architecture.embed_dim, architecture.mask_in_chans)
        self.mask_decoder = MaskDecoder(architecture)


def seed_weights(model: nn.Module, seed: int) -> None:
    """Fill every parameter and buffer with reproducible noise at the scale of a trained network.

    Matrices get a standard deviation of fan_in^-0.5, vectors 0.1; a norm's weight stays around 1. NumPy's
    `RandomState` is used because its stream is frozen for good; torch's may change between releases.
    """
    norms = {f"{name}.weight" for name, module in model.named_modules() if "Norm" in type(module).__name__}
    for index, (name, tensor) in enumerate(sorted(model.state_dict().items())):
        noise = np.random.RandomState(seed + index).standard_normal(tuple(tensor.shape))
        if tensor.dim() == 1:
            noise = 0.1 * noise + (name in norms)
        elif not name.startswith("prompt_encoder.pe_layer") and "embed" not in name and "token.weight" not in name:
            noise *= (tensor.numel() / tensor.shape[0]) ** -0.5
        tensor.copy_(torch.from_numpy(noise))
