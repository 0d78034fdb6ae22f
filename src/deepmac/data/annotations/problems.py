"""What is wrong with a data set: one entry a fault, each one sentence that can be acted on."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a data set.

    Attributes:
        kind: Short noun phrase that groups equal faults, such as ``"zero-area box"``.
        message: One sentence: what, where (file and ids), what to do.
        file: The annotation file, or the image at fault.
        image_id: Image the fault belongs to, if any.
        annotation_id: Annotation the fault belongs to, if any.
        is_note: True when the data was mended and stays usable (a box clipped to the image); a
            note is counted and shown but never stops a run.
    """

    kind: str
    message: str
    file: Path
    image_id: int | None = None
    annotation_id: int | None = None
    is_note: bool = False

    def __post_init__(self) -> None:
        if not self.message.isascii():  # a lone surrogate could be neither printed nor written
            shown = self.message.encode("utf-8", "backslashreplace").decode("utf-8")
            object.__setattr__(self, "message", shown)


def count_kinds(problems: Iterable[Problem]) -> dict[str, int]:
    """Problems by kind, the most frequent first."""
    return dict(Counter(problem.kind for problem in problems).most_common())


def describe_kinds(problems: Iterable[Problem]) -> str:
    """For people: ``"3 missing image, 1 zero-area box"``."""
    return ", ".join(f"{number} {kind}" for kind, number in count_kinds(problems).items())


def stop_message(errors: list[Problem]) -> str:
    """The first error in full and a count of the others."""
    first, others = errors[0], errors[1:]
    if not others:
        return first.message
    return (
        f"{first.message} ... and {len(others)} more ({describe_kinds(others)}); "
        "`deepmac check-data` lists them all, data.on_error=drop leaves them out."
    )
