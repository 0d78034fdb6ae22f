"""Deep-MARC: the deep mask heads on torchvision's Mask R-CNN."""
