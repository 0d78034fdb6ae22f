"""A mask head of your own: any module from the crop of a box to a few maps.

    cd examples
    deepmac fit experiment=shapes model.mask_head=own_mask_head.DilatedHead
    DEEPMAC_EXTENSIONS=own_mask_head deepmac label --model ../runs/.../last.ckpt ...

or run this file: it trains for a moment and opens what it has saved.
"""

import sys
from pathlib import Path

from torch import Tensor, nn

from deepmac import load_model
from deepmac.cli import main


class DilatedHead(nn.Module):
    """Four convolutions that look ever farther, at the crop's full resolution.

    Args:
        in_channels: of the crop: pixel embedding, coordinates and instance embedding.
        width: ``model.num_init_channels``.

    Attributes:
        out_channels: of what it gives; a 1 x 1 convolution makes the mask of it.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.out_channels = width
        layers: list[nn.Module] = []
        for dilation in (1, 2, 4, 8):
            layers += [
                nn.Conv2d(in_channels, width, 3, padding=dilation, dilation=dilation),
                nn.GroupNorm(1, width),
                nn.ReLU(),
            ]
            in_channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, crops: Tensor) -> Tensor:
        """(N, in_channels, S, S) to (N, out_channels, S, S); N may be 0."""
        return self.layers(crops)


if __name__ == "__main__":
    words = sys.argv[1:] or ["trainer.max_steps=50", "trainer.max_epochs=-1"]
    code = main(["fit", f"model.mask_head={Path(__file__).stem}.DilatedHead", *words])
    if code == 0:
        saved = sorted(Path("runs/shapes").glob("*/checkpoints/last.ckpt"))
        print(load_model(saved[-1]).mask_head)
    sys.exit(code)
