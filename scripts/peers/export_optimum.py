"""Export a Hugging Face SamModel folder with optimum-onnx, in that package's own environment.

python export_optimum.py HF_FOLDER OUT_FOLDER
"""

from __future__ import annotations

import sys

from optimum.exporters.onnx import onnx_export_from_model
from transformers import SamModel

folder, out = sys.argv[1:]
onnx_export_from_model(SamModel.from_pretrained(folder).eval(), out, task="feature-extraction", do_validation=False)
