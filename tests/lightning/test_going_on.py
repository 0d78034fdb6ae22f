"""The command that is printed goes on with the very run."""

from pathlib import Path

import pytest

from deepmac.lightning.going_on import command_to_go_on, remember_command

RUN = Path("/runs/one two")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (
            ["train.py", "experiment=shapes"],
            "python train.py experiment=shapes 'hydra.run.dir=/runs/one two' ckpt_path=last",
        ),
        (
            ["/bin/deepmac", "fit", "ckpt_path=best.ckpt", "hydra.run.dir=x", "a=b c"],
            "deepmac fit 'a=b c' 'hydra.run.dir=/runs/one two' ckpt_path=last",
        ),
        (
            ["deepmac", "fit", "--config", "run.yaml", "--ckpt_path", "x.ckpt"],
            "DEEPMAC_RUN_DIR='/runs/one two' deepmac fit --config run.yaml --ckpt_path=last",
        ),
        (["train.py", "-m", "model.lr=1,2"], "python train.py -m model.lr=1,2 ckpt_path=last"),
    ],
)
def test_command_to_go_on__is_the_users_own_with_its_run(typed, expected):
    remember_command(typed)
    assert command_to_go_on(RUN) == expected
    remember_command([])
