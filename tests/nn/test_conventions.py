"""One table says how the TensorFlow originals differ, and the rest of the code asks no more."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from deepmac.nn.conventions import TF_LATEST, TF_RELEASE, TODAY, Conventions, conventions_of
from deepmac.nn.norm import BatchNorm2d, NormOptions
from deepmac.nn.replicas import Replicas, share

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "deepmac"
ROOMS_OF_THE_ORIGINAL = ("nn/conventions.py", "losses/original.py", "data/original/")
WORDS = {"compat", "conventions", "original"}
MOST_CONDITIONALS = 12


def test_norms__of_the_original() -> None:
    assert TODAY.hourglass_norm == TODAY.resnet_norm == NormOptions()
    for original in (TF_RELEASE, TF_LATEST):
        assert original.hourglass_norm == NormOptions(momentum=0.9, biased_running_var=True)
        assert original.resnet_norm == NormOptions(1.001e-5, 0.01, over_replicas=False)


def test_residual_norms__of_the_original_keep_to_their_replica() -> None:
    for each, summed in ((TODAY, True), (TF_LATEST, False)):
        norm = BatchNorm2d(2, each.resnet_norm)
        share(norm, Replicas(2, lambda sums: 2 * sums))
        assert norm._sums_over_replicas() is summed


def test_conventions__are_found_by_the_name_in_the_settings() -> None:
    assert [conventions_of(each.compat) for each in (TODAY, TF_RELEASE, TF_LATEST)] == [
        *(TODAY, TF_RELEASE, TF_LATEST)
    ]
    with pytest.raises(ValueError, match="tf_release, tf_latest or null, not 'tf_2019'"):
        conventions_of("tf_2019")  # type: ignore[arg-type]


def test_every_field__names_its_row_of_the_page_on_fidelity() -> None:
    code = (SOURCE / "nn" / "conventions.py").read_text()
    page = (ROOT / "docs" / "fidelity.md").read_text()
    for field in fields(Conventions):
        if field.name == "compat":
            continue
        found = re.search(rf'^    {field.name}: .*\n    # "(.*)"$', code, re.MULTILINE)
        assert found, f"{field.name} quotes no row"
        assert f"| {found[1]}" in page, f"{field.name}: no row begins with {found[1]!r}"


def conditionals(path: Path) -> list[int]:
    """Lines where a decision depends on which original is followed."""
    lines = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            asked: list[ast.AST] = [node.test]
        elif isinstance(node, ast.BoolOp):
            asked = list(node.values)
        elif isinstance(node, ast.Compare):
            asked = [node]
        elif isinstance(node, ast.comprehension):
            asked = list(node.ifs)
        else:
            continue
        names = {
            word
            for test in asked
            for part in ast.walk(test)
            for word in (
                [part.id]
                if isinstance(part, ast.Name)
                else [part.attr]
                if isinstance(part, ast.Attribute)
                else [part.value]
                if isinstance(part, ast.Constant)
                else []
            )
        }
        if names & WORDS:
            lines.add(asked[0].lineno)
    return sorted(lines)


def test_conditionals_on_the_original__are_few_outside_its_rooms() -> None:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(ROOMS_OF_THE_ORIGINAL):
            found[name] = conditionals(path)
    found = {name: lines for name, lines in found.items() if lines}
    assert sum(map(len, found.values())) <= MOST_CONDITIONALS, found
