"""The model of scaling: its arithmetic on constants chosen to be easy, and that what binds is what is slowest."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import scaling_model
import scaling_tables
from scaling_model import CHANGED, TODAY, Assumed, Measured
from scaling_tables import GPUS

from fer_ray.scoring import manifest, on_ray
from fer_ray.storage import object_store

MEASURED = Measured(
    core_s={1: 0.001, 2: 0.0012},
    warm_s=0.0,
    actor_s={1: 0.0, 2: 0.0},
    driver_s=0.0,
    node_s=0.0,
    start_s=10.0,
    listing_s=1e-6,
    entry_s=1e-6,
    bookkeeping_s=(0.001, 0.0),
    merge_s=1e-6,
    count_s=1e-6,
    footer_s=0.0,
    footer_bytes=0.0,
    chunk_s=0.0,
    image_requests=2,
    chunk_requests=5,
    merge_requests=4,
    ask_s=(0.02, 0.0),
    epoch_s=0.005,
    complete_s=(0.01, 0.0),
    trial_writes=(16, 1),
    gradients={"fast": 4_000_000},
)
ASSUMED = Assumed()


def test_the_constants_of_the_code_are_those_of_the_model() -> None:
    ours = (scaling_model.CHUNK_FILES, scaling_model.FIRST_CHUNK_FILES, scaling_model.GROWTH)
    assert ours == (manifest.CHUNK_FILES, manifest._FIRST_CHUNK_FILES, manifest._GROWTH)
    at_once = (scaling_model.REQUESTS_AT_ONCE, scaling_model.CHUNKS_AT_ONCE)
    assert at_once == (object_store.REQUESTS_AT_ONCE, on_ray._AT_ONCE)


@pytest.mark.parametrize("images", [1, 64, 65, 5000, 40_000, 100_000])
def test_a_listing_has_as_many_chunks_as_the_manifest_writes(images: int) -> None:
    assert scaling_model.chunks_of(images) == len(list(manifest._chunked(iter(range(images)))))


def test_scoring_on_a_few_cores() -> None:
    one, two, four = (scaling_model.score_here(MEASURED, raylets, 2, 10**6) for raylets in (1, 2, 4))
    assert one.per_s == pytest.approx(1 / 0.001)
    assert (one.binds, four.binds) == ("actors", "cores")
    assert two.per_s == pytest.approx(2 / (0.0012 + 1e-6))
    assert four.per_s == pytest.approx(two.per_s), "four actors have no more than two cores"
    assert one.seconds == pytest.approx(10 + 10**6 * (1e-6 + 0.001 + 1e-6))
    busy = replace(MEASURED, node_s=0.1)
    assert scaling_model.score_here(busy, 4, 2, 10**6).per_s == pytest.approx(1.5 / (0.0012 + 1e-6))
    warming = replace(MEASURED, warm_s=2.0)
    assert scaling_model.score_here(warming, 1, 2, 1000).per_s == pytest.approx(1000 / (1 + 2))
    four_at_once = (1000 * (0.0012 + 1e-6) + 4 * 2) / 2
    assert scaling_model.score_here(warming, 4, 2, 1000).per_s == pytest.approx(1000 / four_at_once)


def test_the_share_that_is_rays() -> None:
    assert scaling_model.lost_here(MEASURED, 1, 2, 10**6) == 0
    assert scaling_model.lost_here(replace(MEASURED, actor_s={1: 0.001}), 1, 2, 10**6) == pytest.approx(0.5)
    assert scaling_model.lost_here(replace(MEASURED, warm_s=9.0), 1, 2, 10**6) == 0, "without Ray they warm up too"
    measured = replace(MEASURED, actor_s={2: 0.0001}, node_s=0.1, merge_s=0.0)
    window = 10**6 * (0.0012 + 0.0001) / (2 - 5 * 0.1)
    share = scaling_model.ray_cpu_here(measured, raylets=4, cores=2, images=10**6)
    assert share == pytest.approx((100 + 0.5 * window) / (1200 + 100 + 0.5 * window))


def test_the_share_of_a_measured_job() -> None:
    bare = [{"processes": 2, "images": 1000, "cpu_s": 1.0}, {"processes": 2, "images": 9000, "cpu_s": 7.0}]
    job = {
        "raylets": 4,
        "files": 1000,
        "cpu_s": {"actors": 1.1, "driver": 0.2, "raylets": 0.2},
        "driver_functions": {"merge": {"cpu_s": 0.05}},
    }
    assert scaling_model.cpu_share(job, bare, cores=2) == pytest.approx(1 - 1.05 / 1.5)


def test_what_is_slowest_binds_on_gpus() -> None:
    def binds(measured: Measured, assumed: Assumed = ASSUMED, **kind: bool) -> str:
        return scaling_model.score_on_gpus(measured, assumed, 8, 10**8, **kind).binds

    assert binds(MEASURED) == "decoding"
    assert binds(MEASURED, replace(ASSUMED, decoded_per_s=1e6)) == "GPUs"
    assert binds(replace(MEASURED, footer_s=0.1)) == "manifest"
    assert binds(replace(MEASURED, merge_s=1e-4)) == "merging"
    assert binds(replace(MEASURED, bookkeeping_s=(1.0, 0.0))) == "handing out"
    growing = replace(MEASURED, bookkeeping_s=(0.0, 1.0))
    assert (binds(growing), binds(growing, replace(ASSUMED, growth=1.0))) == ("decoding", "handing out")
    assert binds(replace(MEASURED, listing_s=1e-3)) == "listing"
    assert binds(replace(MEASURED, count_s=1e-3)) == "counting"
    assert binds(replace(MEASURED, start_s=1e9)) == "start"
    assert binds(MEASURED, in_store=True, photos=True) == "network"
    assert binds(MEASURED, replace(ASSUMED, prefixes=1), in_store=True) == "requests"


def test_scoring_on_gpus_by_hand() -> None:
    assumed = replace(ASSUMED, decoded_per_s=10_000)
    chunks = scaling_model.chunks_of(10**7)
    rounds, chunk_s = math.ceil(chunks / 8), 10**7 / chunks * 1e-4
    one = scaling_model.score_on_gpus(MEASURED, assumed, 8, 10**7)
    assert one.per_s == pytest.approx(10**7 / (rounds * chunk_s)) == pytest.approx(80_000, rel=0.01)
    assert one.seconds == pytest.approx(10 + rounds * chunk_s + 10**7 * (1e-6 + 1e-6))
    slowed = scaling_model.score_on_gpus(replace(MEASURED, footer_s=0.001, chunk_s=0.01), assumed, 8, 10**7)
    assert slowed.per_s == pytest.approx(10**7 / (chunks * 0.001 + rounds * (chunk_s + 0.01)))
    few = scaling_model.score_on_gpus(replace(MEASURED, bookkeeping_s=(0.0, 0.0)), assumed, 512, 1000)
    assert few.per_s == pytest.approx(1000 / (1000 / scaling_model.chunks_of(1000) * 1e-4)), (
        "no GPU has two of 16 chunks"
    )
    two_each = scaling_model.score_on_gpus(MEASURED, replace(assumed, actors_a_gpu=2), 1, 10**7)
    assert two_each.per_s == pytest.approx(20_000, rel=0.01), "as much as the GPU labels"
    quick, slow = (
        scaling_model.score_on_gpus(MEASURED, replace(assumed, request_s=request_s), 1, 10**7, in_store=True)
        for request_s in (0.01, 0.1)
    )
    assert quick.per_s == pytest.approx(10_000, rel=1e-4), "one chunk's five requests pass while another is decoded"
    assert slow.per_s == pytest.approx(10**7 / (0.1 + (10**7 * 1e-4 + chunks * 5 * 0.1) / 2))
    stored = scaling_model.score_on_gpus(replace(MEASURED, merge_s=0.0, merge_requests=6), assumed, 512, 10**7, True)
    assert stored.per_s == pytest.approx(10**7 / (chunks * 0.03 * 6 / 24)), "six requests a piece, 24 at once"


def test_more_gpus_never_take_longer_and_changes_help() -> None:
    measured = replace(MEASURED, footer_s=4e-6, footer_bytes=480, chunk_s=1e-3, merge_s=3e-6)
    for images in scaling_tables.IMAGES:
        for in_store in (False, True):
            times = [scaling_model.score_on_gpus(measured, ASSUMED, gpus, images, in_store).seconds for gpus in GPUS]
            assert all(later <= earlier for earlier, later in pairwise(times))
            better = scaling_model.score_on_gpus(measured, ASSUMED, 512, images, in_store, design=CHANGED)
            assert better.seconds < times[-1]
    assert scaling_model.score_on_gpus(measured, ASSUMED, 512, 10**9, design=TODAY).binds == "merging"


def test_search() -> None:
    trial_s = ASSUMED.epochs * ASSUMED.rows / (ASSUMED.gpu_trained_per_s / ASSUMED.trials_a_gpu)
    few = scaling_model.search(MEASURED, ASSUMED, 512, 64)
    assert (few.seconds, few.binds) == (pytest.approx(10 + trial_s / 2), "trials too few"), "each has a GPU"
    assert scaling_model.search(MEASURED, ASSUMED, 8, 64).seconds == pytest.approx(10 + 4 * trial_s)
    growing = replace(MEASURED, ask_s=(0.02, 0.001))
    many = scaling_model.search(growing, ASSUMED, 512, 10_000)
    by_hand = 10_000 * (0.02 + 26 * 0.005 + 0.01) + 0.001 * 10_000**2 / 2
    assert (many.seconds, many.binds) == (pytest.approx(10 + by_hand), "driver")
    assert scaling_model.writes_per_s(MEASURED, ASSUMED, 2.0) == pytest.approx(2 * (16 + 26))


def test_training() -> None:
    assert scaling_model.all_reduce_s(4e6, 1, 1e9, 0.1) == 0
    assert scaling_model.all_reduce_s(4e6, 2, 1e9, 0.001) == pytest.approx(4e6 / 1e9 + 0.002)
    assert scaling_model.train(MEASURED, ASSUMED, 1, "fast") == (1, 1, "GPUs")
    apart, within, binds = scaling_model.train(MEASURED, replace(ASSUMED, link_bytes_per_s=1e8), 8, "fast")
    sending, compute = 14 * (4e6 / 8 / 1e8 + 50e-6), 0.0128
    assert (apart, within) == (pytest.approx(compute / (compute + sending)), pytest.approx(compute / sending))
    assert binds == "all-reduce"
    assert scaling_model.train(MEASURED, ASSUMED, 512, "fast")[2] == "rows: too few steps"


def test_a_line_through_points() -> None:
    assert scaling_model.line([(1, 3.0), (2, 5.0), (3, 7.0)]) == (pytest.approx(1), pytest.approx(2))
    assert scaling_model.line([(4, 0.5)]) == (0.5, 0)
    assert scaling_model.line([(1, 3.0), (2, 1.0)]) == (2, 0), "nothing costs less the more there is of it"


def test_assumptions_can_be_replaced() -> None:
    changed = scaling_model.assume(ASSUMED, ["gpu_images_per_s=1e5", "cores_a_gpu=16"])
    assert (changed.gpu_images_per_s, changed.cores_a_gpu) == (100_000, 16)
    with pytest.raises(SystemExit, match="known are gpu_images_per_s"):
        scaling_model.assume(ASSUMED, ["gpus=3"])
    with pytest.raises(SystemExit, match="gpu_images_per_s=0: must be above 0"):
        scaling_model.assume(ASSUMED, ["request_s=0", "gpu_images_per_s=0"])
    with pytest.raises(SystemExit, match="'many' is no number"):
        scaling_model.assume(ASSUMED, ["batch=many"])


def test_the_document_has_the_tables_that_follow_from_what_was_measured() -> None:
    raw = json.loads(scaling_tables.MEASURED.read_text())
    tables = scaling_tables.all_tables(raw, ASSUMED)
    document = (Path(__file__).parents[1] / "cluster" / "SCALING.md").read_text()
    assert scaling_tables.updated(document, tables) == document, "scaling_tables.py --update cluster/SCALING.md"
    assert tables["scoring"].count("| 10^") == len(GPUS) * len(scaling_tables.IMAGES)
    replaced = scaling_tables.updated(document, tables | {"scoring": "| other |"})
    assert replaced.count("\n") == document.count("\n") - tables["scoring"].count("\n")
    with pytest.raises(SystemExit, match="no line <!-- more -->"):
        scaling_tables.updated(document, {"more": ""})
