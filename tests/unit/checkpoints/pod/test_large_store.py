"""The figures of a large store. `bench/checkpoints.py` measures more of them."""

from __future__ import annotations

import json

import pytest

from tests.support.sizes import size
from tests.unit.checkpoints.scripts import run

LARGE = """
import json, os, random, sys, time
from checkpoints import POD
path, keys = sys.argv[1], int(sys.argv[2])

def resident_megabytes():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096 / 1e6

def commit_plainly(folder, data):
    with open(folder + "/new", "wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    os.rename(folder + "/new", folder + "/plain")
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)

if sys.argv[3] == "make":
    with POD(path, sync_at=None, durable=False) as pod:
        pod.update({f"key {number}": {"n": number, "pad": "x" * 180} for number in range(keys)})
    print("{}")
    sys.exit()
began = time.process_time()  # what this process computed, not how long others kept it waiting
pod = POD(path, sync_at=None)
opened = time.process_time() - began
luck = random.Random(1)
began = time.perf_counter()
for number in range(100):
    key = f"key {luck.randrange(keys)}"
    pod[key]["n"] += 1
    pod.sync_key(key)
updates = 100 / (time.perf_counter() - began)
began = time.perf_counter()
for _ in range(100):
    commit_plainly(os.path.dirname(path), b"x" * 20_000)
plain = 100 / (time.perf_counter() - began)
for key, value in pod.items():
    assert value["n"] >= 0
figures = {"open_seconds": opened, "updates_per_second": updates, "plain_per_second": plain}
print(json.dumps(figures | {"megabytes": resident_megabytes()}))
pod.close()
"""


@pytest.mark.parametrize("keys", [10_000, pytest.param(100_000, marks=pytest.mark.proof)])
def test_a_large_store_opens_quickly_updates_durably_and_stays_small(tmp_path, keys):
    run(LARGE, tmp_path, keys, "make")
    figures = json.loads(run(LARGE, tmp_path, keys, "measure"))
    print(figures)
    assert figures["open_seconds"] < size(ci=30, proof=2)
    assert figures["megabytes"] < 150
    # A disk that others keep busy does not give a hundred to anybody.
    least = min(100, figures["plain_per_second"] / 2)
    assert figures["updates_per_second"] > size(ci=1.0, proof=least)
