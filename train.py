"""Train Deep-MAC with Hydra's command line: ``python train.py experiment=voc_to_nonvoc``."""

import sys

import hydra
from omegaconf import DictConfig

from deepmac.cli import train, words_for_hydra


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float | None:
    """Run one job of the tree in conf/; returns the monitored value to Hydra's sweepers."""
    return train(config)


if __name__ == "__main__":
    sys.argv[1:] = words_for_hydra(sys.argv[1:])
    main()
