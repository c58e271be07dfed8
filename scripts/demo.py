"""What the demo shows: clicks and boxes on drawn pictures, answered by eager PyTorch, by ONNX Runtime and in FP16.

    python scripts/demo.py artifacts/sam_toy.prompts.onnx artifacts/sam_toy.prompts.fp16.onnx

Writes demo.png and demo.npz beside them: the picture, and the prompts as recorded inputs for `validate --feeds`.

P prompts, M masks, C channels, h x w image tokens, S the side of a picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from toy.network import embed, load
from toy.pictures import Array, Picture, Prompt, box, click, draw
from toy.scoring import enlarge, pack

from samdec_export.backends.eager import EagerRunner
from samdec_export.backends.oracle.runner import OracleRunner
from samdec_export.backends.ort import OrtRunner
from samdec_export.core.runner import Feeds, Runner
from samdec_export.export.onnx_file import open_artifact
from samdec_export.models.checkpoint import load_for
from samdec_export.models.sam.graphs import build_graph

SCENES: Final[tuple[tuple[str, int, Callable[[np.random.Generator, Array], Prompt]], ...]] = (
    ("a click on each object", 1_000_028, click),
    ("a box around each object", 1_000_008, box),
)
"""What is asked of a picture, the picture's seed (none that training drew), and what makes the prompts."""

COLOURS: Final = ("#ffd23f", "#ee4266", "#3bceac", "#3a86ff", "#ff8c42", "#b388eb")
FLIPPED: Final = "#ff0000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A picture with a prompt for each object, and what the graph takes for them."""

    title: str
    picture: Picture
    prompts: Sequence[Prompt]
    feeds: Feeds


def main() -> None:
    """Ask every runner about every scene; write the picture and the recorded inputs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fp32", type=Path, help="the prompts graph of sam_toy")
    parser.add_argument("fp16", type=Path, help="the same in fp16")
    options = parser.parse_args()
    scenes = draw_scenes()
    recorded: dict[str, Any] = {
        f"{scene.title}/{name}": array for scene in scenes for name, array in scene.feeds.items()
    }
    np.savez_compressed(options.fp32.with_name("demo.npz"), **recorded)
    runners = open_runners(options.fp32, options.fp16)
    masks = [[best_masks(runner, scene.feeds) for runner in runners.values()] for scene in scenes]
    for scene, found in zip(scenes, masks, strict=True):
        print(f"{scene.title}, {len(scene.prompts)} objects:")
        for name, each in zip(runners, found, strict=True):
            print(f"  {name:<34} {verdict(scene, each, found[0])}")
    plot(scenes, list(runners), masks, options.fp32.with_name("demo.png"))
    print(f"{options.fp32.with_name('demo.png')}: flipped pixels are marked in red")
    print(f"{options.fp32.with_name('demo.npz')}: these inputs, for samdec-export validate --feeds")


def draw_scenes() -> list[Scene]:
    """Pictures, drawn and embedded, and a prompt for every object."""
    model, scenes = load(), []
    for title, seed, ask in SCENES:
        rng = np.random.default_rng(seed)
        picture = draw(rng)
        prompts = [ask(rng, target) for target in picture.objects]
        points, labels = pack(prompts)
        feeds = {"image_embeddings": embed(model, [picture]), "point_coords": points, "point_labels": labels}
        scenes.append(Scene(title=title, picture=picture, prompts=prompts, feeds=feeds))
    return scenes


def open_runners(fp32: Path, fp16: Path) -> dict[str, Runner]:
    """Eager PyTorch as the reference, the exported file in ONNX Runtime, the converted one rounded as a GPU does."""
    artifact = open_artifact(fp32)
    loaded = load_for(artifact, None)
    graph = build_graph(loaded.decoder, loaded.grid, artifact.record.options)
    return {
        "eager PyTorch fp32": EagerRunner(graph, artifact.record.signature),
        "ONNX Runtime fp32": OrtRunner(fp32),
        "FP16, every node rounded": OracleRunner(fp16),
    }


def best_masks(runner: Runner, feeds: Feeds) -> Array:
    """Of each prompt the mask ranked first, at the picture's size: bool (P, S, S)."""
    outputs = runner.run(feeds)
    logits, iou = outputs["low_res_masks"][0], outputs["iou_predictions"][0]  # (P, M, 4h, 4w), (P, M)
    chosen: Array = enlarge(logits[np.arange(len(iou)), iou.argmax(-1)].astype(np.float32)) > 0
    return chosen


def verdict(scene: Scene, masks: Array, reference: Array) -> str:
    """Mean IoU with the drawn objects for the reference; with the reference, and flipped pixels, for the others."""
    if masks is reference:
        return f"IoU with the drawn shapes {overlap(masks, scene.picture.objects):.3f}"
    flipped = int((masks ^ reference).sum())
    return f"IoU with eager {overlap(masks, reference):.5f}, {flipped} of {masks.size:,} pixels flipped"


def overlap(found: Array, target: Array) -> float:
    """Mean IoU of masks (P, S, S)."""
    return float(np.mean((found & target).sum((1, 2)) / np.maximum((found | target).sum((1, 2)), 1)))


def plot(scenes: Sequence[Scene], names: Sequence[str], masks: Sequence[Sequence[Array]], path: Path) -> None:
    """A row for each scene: what was asked, then every runner's masks."""
    columns = 1 + len(names)
    figure = Figure(figsize=(3.2 * columns, 3.8 * len(scenes)), layout="constrained")
    panels = figure.subplots(len(scenes), columns, squeeze=False)
    for row, scene, found in zip(panels, scenes, masks, strict=True):
        show_prompts(row[0], scene)
        for panel, name, each in zip(row[1:], names, found, strict=True):
            show_masks(panel, scene.picture, each, found[0])
            panel.set_title("\n".join([name, *verdict(scene, each, found[0]).split(", ")]), fontsize=9)
        for target in scene.picture.objects:
            row[1].contour(target, levels=[0.5], colors=["white"], linewidths=0.8)
        for panel in row:
            panel.set_axis_off()
    figure.supxlabel(
        "Colours: what each prompt got. White: the shapes as drawn. Red rings: pixels unlike eager's.", fontsize=9
    )
    figure.savefig(path, dpi=90, bbox_inches="tight", pil_kwargs={"optimize": True})


def show_prompts(panel: Any, scene: Scene) -> None:
    """The picture with clicks as stars and boxes as frames."""
    panel.imshow(scene.picture.pixels)
    panel.set_title(scene.title, fontsize=9)
    for prompt, colour in zip(scene.prompts, COLOURS, strict=False):
        (x, y), *rest = prompt.points
        if rest:
            frame = np.array([[x, y], [rest[0][0], y], rest[0], [x, rest[0][1]], [x, y]])
            panel.plot(*frame.T, color="white", linewidth=3.5)
            panel.plot(*frame.T, color=colour, linewidth=2)
        else:
            panel.plot(x, y, marker="*", markersize=17, color=colour, markeredgecolor="white", markeredgewidth=1.5)


def show_masks(panel: Any, picture: Picture, masks: Array, reference: Array) -> None:
    """The picture in grey under the masks, with rings around the pixels that differ from the reference."""
    grey = 0.25 + 0.5 * picture.pixels.mean(-1, keepdims=True)
    canvas = np.repeat(np.round(16 * grey) / 16, 3, axis=-1)  # few levels: noise makes a file large
    for mask, colour in zip(masks, COLOURS, strict=False):
        rgb = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
        canvas[mask] = 0.4 * canvas[mask] + 0.6 * rgb
    panel.imshow(canvas)
    for mask, colour in zip(masks, COLOURS, strict=False):
        panel.contour(mask, levels=[0.5], colors=[colour], linewidths=1.5)
    rows, at = np.nonzero((masks ^ reference).any(0))
    panel.scatter(at, rows, s=50, facecolors="none", edgecolors=FLIPPED, linewidths=1.8)


if __name__ == "__main__":
    main()
