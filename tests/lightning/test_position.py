"""A run goes on at the same image with another number of devices or another batch size."""

import copy

from deepmac.lightning.position import Pace, moved


def loops(total, current, ahead=0):
    def counts(done):
        return {"ready": done + ahead, "started": done, "processed": done, "completed": done}

    progress = {"total": counts(total), "current": counts(current), "is_last_batch": False}
    return {"fit_loop": {"epoch_loop.batch_progress": progress}}


def after(stored, old, new):
    moved(stored, old._asdict(), new)
    progress = stored["fit_loop"]["epoch_loop.batch_progress"]
    return progress["total"], progress["current"]


def test_position__is_the_same_image_on_twice_the_devices():
    total, current = after(loops(2 * 100 + 30, 30), Pace(8, 100), Pace(16, 50))
    assert current["processed"] == 15 and total["processed"] == 2 * 50 + 15


def test_position__between_two_batches_is_the_earlier_one():
    total, current = after(loops(100 + 33, 33), Pace(8, 100), Pace(16, 50))
    assert current["processed"] == 16 and total["processed"] == 50 + 16


def test_position__at_the_end_of_an_epoch_stays_there():
    """Also where the last batches of both do not hold the same images."""
    total, current = after(loops(3 * 12, 12), Pace(8, 12), Pace(10, 9))
    assert current["processed"] == 9 and total["processed"] == 27


def test_position__keeps_batches_under_way():
    total, current = after(loops(230, 30, ahead=1), Pace(8, 100), Pace(4, 200))
    assert current == {"ready": 61, "started": 60, "processed": 60, "completed": 60}
    assert total["ready"] == 461


def test_position__of_the_same_run_is_left_alone():
    stored = loops(230, 30)
    before = copy.deepcopy(stored)
    moved(stored, Pace(8, 100)._asdict(), Pace(8, 100))
    assert stored == before
