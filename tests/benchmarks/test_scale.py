"""The arithmetic of many hosts."""

from dataclasses import replace

import pytest
from benchmarks.scale import Hosts, Job, estimate, main

JOB = Job(1e6, boxes=10, picture_bytes=1e5, annotation_bytes=100, decode=100, compute=50,
          chunk_bytes=1e7, requests=1.0, store=1e12)  # fmt: skip


def test_cores__decode_and_compute_in_turn():
    found = estimate(JOB, Hosts(10, cores=10, network=1e12, price=2.0))
    assert found.seconds["cores"] == pytest.approx(1e6 * (0.01 + 0.02) / 100)
    assert found.narrowest == "cores" and found.hours == pytest.approx(300 / 3600)
    assert found.bytes == pytest.approx(1e6 * (1e5 + 1000)) and found.chunks == 10_100
    assert found.cost == pytest.approx(300 / 3600 * 10 * 2 + 10.1)


def test_cards__compute_while_cores_decode():
    job = replace(JOB, compute=500, per_box=0.0001)
    found = estimate(job, Hosts(4, cores=8, cards=2, network=1e12))
    assert found.seconds["cards"] == pytest.approx(1e6 * (0.002 + 0.001) / 8)
    assert found.seconds["decoding"] == pytest.approx(1e4 / 32)
    assert found.narrowest == "cards"


def test_narrowest__moves_to_the_wire_and_then_to_the_store():
    thin = Hosts(1, cores=1000, network=1e6)
    assert estimate(JOB, thin).narrowest == "network of the hosts"
    assert estimate(replace(JOB, store=1e5), thin).narrowest == "object store"


def test_more_hosts__take_less_time_until_the_store_is_all():
    hours = [estimate(JOB, Hosts(n)).hours for n in (1, 8, 64, 1024)]
    assert hours == sorted(hours, reverse=True)
    last = [estimate(replace(JOB, store=1e9), Hosts(n)).hours for n in (10**5, 10**6)]
    assert last[0] == last[1]


def test_command__prints_a_row_for_each_number_of_hosts(capsys):
    main(["--images", "1e8", "--hosts", "8", "64"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("on paper: 1e+08 pictures") and len(said) == 4
