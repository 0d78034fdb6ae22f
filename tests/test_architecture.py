"""The house rules that a machine can check."""

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "deepmac"
FILES = sorted(SOURCE.rglob("*.py"))
# Every room, from the ground up: each may import from itself and from the floors below it.
FLOORS = (
    "errors class_map",
    "files guard protobuf",
    "drawing",
    "nn",
    "data models",
    "losses",
    "evaluation predict check_data convert",
    "report",
    "lightning",
    "label export study",
    "demo",  # puts right what label made
    "cli",
    "__init__ __main__",
)


def imported(path: Path) -> set[str]:
    """Modules that a file imports, those within its functions included."""
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_files__stay_readable_in_one_sitting():
    long = {str(f): n for f in FILES if (n := len(f.read_text().splitlines())) > 500}
    assert not long


def test_nn__knows_no_lightning_no_hydra_no_coco():
    for path in (SOURCE / "nn").rglob("*.py"):
        names = {name.split(".")[0] for name in imported(path)}
        assert not names & {"pytorch_lightning", "lightning", "hydra", "omegaconf", "pycocotools"}
        inner = {n for n in imported(path) if n.startswith("deepmac.")}
        assert all(n.startswith(("deepmac.nn", "deepmac.errors")) for n in inner), path


def test_rooms__are_all_on_a_floor():
    listed = {name for names in FLOORS for name in names.split()}
    rooms = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in FILES}
    assert rooms == listed


def test_loose_files__are_few():
    assert len(list(SOURCE.glob("*.py"))) <= 8


def test_imports__flow_one_way():
    level = {name: i for i, names in enumerate(FLOORS) for name in names.split()}
    for path in FILES:
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "deepmac" and len(parts) > 1 and parts[1] in level:
                below = level[parts[1]] < level[room]
                assert below or parts[1] == room, f"{path} imports {name}"


def test_imports__have_no_circle():
    modules = {
        ".".join(("deepmac", *f.relative_to(SOURCE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): f
        for f in FILES
    }
    edges = {
        name: {n for n in imported(path) if n in modules and n != name}
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in edges[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in edges:
        visit(name, ())


def test_code__holds_no_leftovers():
    pattern = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    assert not [str(f) for f in FILES if pattern.search(f.read_text())]


def test_docstrings__have_one_markup():
    """Code in double backticks, entries of ``Args`` in lower case."""
    single = re.compile(r"(?<![`:\w])`[^`\n]+`(?!`)")
    shouted = re.compile(r"^ +[\w*, ]+: (?!Deep|Lightning|TensorFlow|None|False|True)[A-Z][a-z]")
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                assert not single.search(text), f"{path}: {single.search(text).group(0)}"
                entries = text.partition("Args:\n")[2].partition("\n\n")[0]
                assert not [line for line in entries.splitlines() if shouted.match(line)], path
