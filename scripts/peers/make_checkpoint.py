"""Save one set of seeded weights twice: as segment-anything saves them, and as a Hugging Face folder.

python make_checkpoint.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
import torch
import upstream

folder = Path(sys.argv[1])
sam = upstream.build_sam("vit_b")
torch.save(sam.state_dict(), folder / "sam_b.pt")
upstream.huggingface_model(sam).save_pretrained(folder / "hf")
