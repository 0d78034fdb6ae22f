"""Many boxes through Ray, with a stub in the network's place."""

import pytest

pytest.importorskip("ray")


@pytest.mark.slow
def test_twenty_thousand_boxes__leave_memory_flat():
    from benchmarks.ray_boxes import measure

    found, _, watch = measure(20_000, each=20, actors=2)
    assert found.boxes == 20_000 and found.errors == 0
    begun, ended = (sizes for *_, sizes in (watch.marks[1], watch.marks[-1]))
    for before, after in zip(begun, ended, strict=True):
        assert before > 0 and after - before < 50
