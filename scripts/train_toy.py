"""Train sam_toy, the embedded model, on shapes that it draws.

    python scripts/train_toy.py           # minutes on one core; replaces the weights in samdec_export/models
    python scripts/train_toy.py --score   # only measure the weights that are there

B pictures, P prompts of a picture, N points, M masks, S the side of a picture, s = S / 4 of a mask.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as serialise
from torch import Tensor
from torch.nn import functional as F
from toy.network import WEIGHTS, ToySam, embed, load
from toy.pictures import SIDE, Array, draw
from toy.scoring import KINDS, held_out, score

from samdec_export.core.files import staging

CELL = 4
"""Picture pixels along one side of a mask pixel."""

PICTURES, PROMPTS, POINTS = 8, 6, 4
"""A batch: pictures, prompts of each, points of a prompt."""

DECAY, WARMUP, CLIP, SMOOTHING = 0.02, 100, 1.0, 0.998
"""AdamW's weight decay, steps of warming up, the largest gradient, the weights' moving average."""

SAVED_EVERY = 250
"""Steps: a run that is stopped leaves what it has."""

CLICK, CLICKS, BOX, BOX_AND_CLICKS = range(4)


@dataclass(frozen=True, slots=True)
class Pool:
    """Drawn pictures, uint8 (n, S, S, 3), and of each the part of every mask pixel that an object covers, in 16ths."""

    pictures: Tensor
    objects: list[Tensor]


def main() -> None:
    """Train, write the weights and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--pool", type=int, default=2000, help="pictures drawn; each is varied at every use")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=2e-3, help="AdamW's highest rate")
    parser.add_argument("--start", type=Path, help="weights to go on from")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--score", action="store_true", help="measure --out instead of training")
    parser.add_argument("--held-out", type=int, default=100, help="pictures to measure on")
    options = parser.parse_args()
    if not options.score:
        for step, model in train(options.steps, options.pool, options.seed, options.rate, options.start):
            if step % SAVED_EVERY == 0 or step == options.steps:
                save(model, options.out)
        print(f"{options.out}  {options.out.stat().st_size / 1e6:.2f} MB")
    report(load(options.out), options.held_out)


def train(
    steps: int, pool_size: int, seed: int, rate: float = 2e-3, start: Path | None = None
) -> Iterator[tuple[int, ToySam]]:
    """Each step's number and the moving average of the weights; the same arguments give the same weights."""
    torch.manual_seed(seed)
    pool = draw_pool(pool_size, seed)
    model, average = load(start).train() if start else ToySam(), ToySam()
    average.load_state_dict(model.state_dict())
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1, step / WARMUP) * (1 + math.cos(math.pi * step / steps)) / 2
    )
    started, running = time.perf_counter(), 0.0
    for step, (pictures, targets) in enumerate(batches(pool, steps), 1):
        optimiser.zero_grad()
        loss = loss_of(model, pictures, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        follow(average, model, min(SMOOTHING, step / (step + 10)))
        running += (loss.item() - running) / min(step, 50)
        if step % 100 == 0 or step == steps:
            print(f"step {step:>5}  loss {running:.3f}  {time.perf_counter() - started:.0f} s", flush=True)
        yield step, average


def draw_pool(size: int, seed: int) -> Pool:
    """Pictures from seeds of their own, below those that are held out."""
    pictures, objects = [], []
    for index in range(size):
        picture = draw(np.random.default_rng([seed, index]))
        pictures.append(torch.from_numpy(np.rint(255 * picture.pixels).astype(np.uint8)))
        cells = picture.objects.reshape(-1, SIDE // CELL, CELL, SIDE // CELL, CELL)
        objects.append(torch.from_numpy(cells.sum((2, 4), dtype=np.uint8)))  # (K, s, s)
    return Pool(torch.stack(pictures), objects)


def batches(pool: Pool, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures (B, 3, S, S) from 0 to 1 and the objects to find (B, P, s, s), from 0 to 1, turned and recoloured."""
    for _ in range(steps):
        pictures, targets = [], []
        for index in torch.randint(len(pool.objects), (PICTURES,)).tolist():
            picture, objects = pool.pictures[index].permute(2, 0, 1) / 255, pool.objects[index]
            picture = picture[torch.randperm(3)]
            turns, mirrored, inverted = torch.randint(4, (3,)).tolist()
            chosen = objects[torch.randint(len(objects), (PROMPTS,))] / CELL**2
            picture, chosen = (torch.rot90(x, turns, (1, 2)) for x in (picture, chosen))
            if mirrored % 2:
                picture, chosen = picture.flip(2), chosen.flip(2)
            pictures.append(1 - picture if inverted % 2 else picture)
            targets.append(chosen)
        yield torch.stack(pictures), torch.stack(targets)


def loss_of(model: ToySam, pictures: Tensor, targets: Tensor) -> Tensor:
    """Every prompt once, and half of them again with a correction and the mask of the first round."""
    embeddings = model.image_encoder(pictures)
    points, labels = prompts_for(targets)
    logits, iou = model(embeddings, points, labels)
    again = slice(0, PROMPTS // 2)
    logits_before, targets_again = logits[:, again].detach(), targets[:, again]
    best = iou[:, again].argmax(-1)[..., None, None, None].expand(-1, -1, 1, *targets.shape[-2:])
    found = logits_before.gather(2, best).squeeze(2)  # (B, P/2, s, s)
    point, label = corrections_for(targets_again, found)
    points = torch.cat([points[:, again], point], 2)
    labels = torch.cat([labels[:, again], label], 2)
    corrected, iou_corrected = model(embeddings, points, labels, found)
    return fit(logits, iou, targets) + 0.5 * fit(corrected, iou_corrected, targets_again)


def fit(logits: Tensor, iou: Tensor, targets: Tensor) -> Tensor:
    """How far masks (B, P, M, s, s) and their predicted IoU (B, P, M) are from the targets (B, P, s, s).

    Mask 0 answers alone. Of the others the best counts, so that each can take a reading of its own; a tenth of their
    mean keeps the rest from drifting away.
    """
    wanted = targets.unsqueeze(2).expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((-2, -1))  # (B, P, M)
    part = logits.sigmoid()
    dice = 1 - (2 * (part * wanted).sum((-2, -1)) + 1) / (part.sum((-2, -1)) + wanted.sum((-2, -1)) + 1)
    each = 2 * entropy + dice
    alone, others = each[..., 0], each[..., 1:]
    with torch.no_grad():
        found, true = logits > 0, wanted > 0.5
        real = (found & true).sum((-2, -1)) / (found | true).sum((-2, -1)).clamp(min=1)
    return (alone + 0.9 * others.amin(-1) + 0.1 * others.mean(-1)).mean() + F.mse_loss(iou, real)


def prompts_for(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Clicks, boxes, or both: points (B, P, N, 2), labels (B, P, N)."""
    flat = targets.flatten(0, 1).unsqueeze(1)  # (B*P, 1, s, s)
    core = -F.max_pool2d(-flat, 3, 1, 1) > 0.99
    near = (F.max_pool2d(flat, 15, 1, 7) > 0.5) & (flat < 0.01)
    inside = pick(core + 1e-3 * (flat > 0.5), POINTS)
    outside = pick(near + 0.05 * (flat < 0.01), POINTS)  # (B*P, N, 2)
    kind = torch.randint(4, (len(flat), 1))
    is_inside = torch.rand(len(flat), POINTS) < 0.5
    is_inside[:, 0] |= kind[:, 0] <= CLICKS
    points = torch.where(is_inside.unsqueeze(-1), inside, outside)
    labels = is_inside.long()
    has_box = (kind == BOX) | (kind == BOX_AND_CLICKS)
    points[:, :2] = torch.where(has_box.unsqueeze(-1), boxes_of(flat[:, 0] > 0.5), points[:, :2])
    labels[:, :2] = torch.where(has_box, torch.tensor([2, 3]), labels[:, :2])
    used = torch.where(kind == CLICK, 1, torch.where(kind == BOX, 2, torch.randint(2, POINTS + 1, kind.shape)))
    padded = torch.arange(POINTS) >= used
    labels, points = labels.masked_fill(padded, -1), points.masked_fill(padded.unsqueeze(-1), 0)
    return points.unflatten(0, targets.shape[:2]), labels.unflatten(0, targets.shape[:2])


def corrections_for(targets: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """A click on a mistake of `found` logits (B, P, s, s): points (B, P, 1, 2), labels (B, P, 1)."""
    flat, mask = targets.flatten(0, 1).unsqueeze(1), found.flatten(0, 1).unsqueeze(1) > 0
    wrong = ((flat > 0.5) != mask).float()
    deep = -F.max_pool2d(-wrong, 3, 1, 1)
    point = pick(deep + 1e-2 * wrong + 1e-6 * (flat > 0.5), 1)  # (B*P, 1, 2)
    cell = (point // CELL).long()
    label = (flat[:, 0] > 0.5)[torch.arange(len(flat))[:, None], cell[..., 1], cell[..., 0]].long()
    return point.unflatten(0, targets.shape[:2]), label.unflatten(0, targets.shape[:2])


def pick(weights: Tensor, count: int) -> Tensor:
    """Picture positions (n, count, 2) drawn by the weights (n, 1, s, s) of the mask pixels."""
    cells = torch.multinomial(weights.flatten(1) + 1e-12, count, replacement=True)
    corner = CELL * torch.stack([cells % weights.shape[-1], cells // weights.shape[-1]], -1)
    return (corner + torch.randint(CELL, corner.shape)).float()


def boxes_of(masks: Tensor) -> Tensor:
    """Corners (n, 2, 2) of masks (n, s, s), each side off by up to a twelfth of the box's size."""
    ends = []
    for axis in (1, 2):  # columns, then rows
        there = masks.any(axis).float()  # (n, s)
        first, last = there.argmax(1), there.shape[1] - 1 - there.flip(1).argmax(1)
        ends.append(torch.stack([CELL * first, CELL * last + CELL - 1], -1))
    corners = torch.stack(ends, -1).float()  # (n, 2, 2): first and last, x and y
    size = corners[:, 1:] - corners[:, :1]
    return (corners + (torch.rand(corners.shape) - 0.5) / 6 * size).clamp(0, SIDE - 1)


@torch.no_grad()
def follow(average: ToySam, model: ToySam, smoothing: float) -> None:
    """Move the average towards the model."""
    for kept, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        kept.lerp_(value, 1 - smoothing)


def save(model: ToySam, path: Path) -> None:
    """Write a checkpoint: the encoder in half precision, what is exported in full."""
    tensors = {
        name: tensor.half() if name.startswith("image_encoder.") else tensor
        for name, tensor in model.state_dict().items()
    }
    with staging(path.parent) as folder:
        (folder / path.name).write_bytes(serialise(tensors))
        (folder / path.name).replace(path)


@torch.no_grad()
def report(model: ToySam, count: int) -> None:
    """Print the mean IoU of each kind of prompt on held-out pictures."""
    pictures = held_out(count)
    embeddings = embed(model, pictures)

    def decode(embedding: Array, points: Array, labels: Array, masks: Array | None) -> tuple[Array, Array]:
        given = [torch.from_numpy(array) for array in (embedding, points, labels)]
        logits, iou = model(*given, None if masks is None else torch.from_numpy(masks))
        return logits[:, :, 1:].numpy(), iou[:, :, 1:].numpy()

    for kind in KINDS:
        found = score(decode, pictures, embeddings, kind)
        print(f"{kind:<28} ranked first {found.ranked:.3f}  best of three {found.best:.3f}  {found.prompts} prompts")


if __name__ == "__main__":
    main()
