"""An hourglass mask head on torchvision's Faster R-CNN: its features, its boxes, our masks."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops import MultiScaleRoIAlign, roi_align

from deepmac.nn.mask_heads import build_mask_head
from deepmac.predict.paste import paste_masks

detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)  # or weights="DEFAULT"
detector.eval().requires_grad_(False)
crop = MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=32, sampling_ratio=2)
head = build_mask_head("hourglass20", in_channels=256, width=32, mask_size=32)
optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)


def mask_logits(images: list[Tensor], boxes: list[Tensor]) -> Tensor:
    """(R, 32, 32) logits within all boxes, per image (n, 4) xyxy in pixels."""
    batch, scaled = detector.transform(images, [{"boxes": own} for own in boxes])
    features = detector.backbone(batch.tensors)
    return head(crop(features, [own["boxes"] for own in scaled], batch.image_sizes))


def training_step(images: list[Tensor], boxes: list[Tensor], masks: list[Tensor]) -> float:
    """One step on ground-truth boxes; masks are (n, H, W). Boxes without one stay at home."""
    pairs = zip(masks, boxes, strict=True)
    cut = [roi_align(m.float()[:, None], list(own[:, None]), 32)[:, 0] for m, own in pairs]
    loss = F.binary_cross_entropy_with_logits(mask_logits(images, boxes), torch.cat(cut))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


if __name__ == "__main__":
    y, x = torch.meshgrid(torch.arange(128), torch.arange(160), indexing="ij")
    disc = ((x - 70) ** 2 + (y - 60) ** 2 < 40**2).float()
    picture, box = 0.2 + 0.6 * disc.expand(3, -1, -1), torch.tensor([[30.0, 20, 110, 100]])
    for step in range(5):
        print(f"step {step}: mask loss {training_step([picture], [box], [disc[None]]):.3f}")
    with torch.no_grad():
        found = detector([picture])[0]["boxes"]  # untrained here: take any other detector's boxes
        boxes = found if len(found) else box
        head.eval()
        crops = mask_logits([picture], [boxes]).sigmoid()
    print("masks:", paste_masks(crops, boxes, *picture.shape[-2:]).shape)
