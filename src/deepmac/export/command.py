"""``deepmac export MODEL --format onnx --out DIR``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def command(arguments: Sequence[str]) -> int:
    """Run the command; prints what was written and returns the exit code.

    Raises:
        UserError: as :func:`deepmac.export.export_model`.
    """
    options = _parser().parse_args(list(arguments))

    from deepmac.export.export import export_model
    from deepmac.models.files import load_model

    model = load_model(options.model, detector=not options.masks_only)
    exported = export_model(model, options.out, options.format, fixed_size=options.fixed_size)
    for note in exported.notes:
        print(f"note: {note}")
    for name, difference in exported.differences.items():
        print(f"{name}: runs, and differs from the network by {difference:.1e} at most")
    for path in sorted(exported.folder.iterdir()):
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deepmac export",
        description="Write a model for other runtimes: `detect` (pictures to boxes, classes and "
        "masks) and `boxes` (pictures and boxes to masks), with a model.json that says how to "
        "feed them.",
    )
    parser.add_argument("model", metavar="MODEL", help="a model's name, folder or checkpoint")
    parser.add_argument(
        "--format",
        choices=("onnx", "torch", "safetensors"),
        default="onnx",
        help="onnx: .onnx files; torch: .pt2 files for torch.export.load; safetensors: a folder "
        "for load_model and the Hugging Face Hub (default: onnx)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    parser.add_argument(
        "--masks-only",
        action="store_true",
        help="leave the detector out: masks of given boxes alone, in a smaller file",
    )
    parser.add_argument(
        "--fixed-size",
        action="store_true",
        help="fix the pictures' size to the model's own; free where the network allows it",
    )
    return parser
