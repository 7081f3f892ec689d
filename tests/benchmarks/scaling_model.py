"""How scoring, searches and training would do on more GPUs and images than there were to measure on.

Takes measured constants, which ``cluster_scale.py``, ``driver_scale.py`` and ``study_scale.py`` wrote, and assumptions,
which are nobody's measurements and are to be replaced by a reader's own; ``scaling_tables.py`` prints both and what
follows. A job's time is the sum of what happens one after the other (start, listing, scoring, counting), and scoring
takes as long as the slowest of what happens at once. What *binds* is the longest of all these.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

CHUNK_FILES, FIRST_CHUNK_FILES, GROWTH, REQUESTS_AT_ONCE, CHUNKS_AT_ONCE = 1024, 64, 32, 24, 2  # as in fer_ray


@dataclass(frozen=True)
class Measured:
    """Constants that were measured; seconds and bytes.

    Seconds of one thread's work are CPU seconds, which other work on a machine changes less.

    Attributes:
        core_s: CPU of a core, by how many processes score at once on the cores, an image, without Ray.
        warm_s: CPU of a process more, for its first batches, without Ray.
        actor_s: CPU an image that an actor takes more, by how many work at once on the cores.
        driver_s: CPU of the driver a chunk, merging apart, where actors are slow.
        node_s: CPU a second of Ray's own processes, a node.
        start_s: of a job, before its first chunk and after its last count.
        listing_s: an input in local folders.
        entry_s: an input, written to the manifest without being looked for.
        bookkeeping_s: CPU of the driver a chunk, where actors are fast: with few of them, and more an actor.
        merge_s: of the driver a row, on a local disk.
        count_s: likewise.
        footer_s: CPU to read a manifest's end, a chunk that it has; each actor does that once.
        footer_bytes: of it, a chunk.
        chunk_s: CPU to read a chunk of a manifest whose end is known.
        image_requests: to an object store, an image.
        chunk_requests: to read a chunk of the manifest and to write its piece.
        merge_requests: to read a piece and to remove it.
        ask_s: to draw a trial: in an empty study, and more a trial that it has.
        epoch_s: to report an epoch.
        complete_s: to close a trial: in an empty study, and more a trial that it has.
        trial_writes: transactions a trial, and more an epoch.
        gradients: bytes by architecture.
    """

    core_s: dict[int, float]
    warm_s: float
    actor_s: dict[int, float]
    driver_s: float
    node_s: float
    start_s: float
    listing_s: float
    entry_s: float
    bookkeeping_s: tuple[float, float]
    merge_s: float
    count_s: float
    footer_s: float
    footer_bytes: float
    chunk_s: float
    image_requests: float
    chunk_requests: float
    merge_requests: float
    ask_s: tuple[float, float]
    epoch_s: float
    complete_s: tuple[float, float]
    trial_writes: tuple[float, float]
    gradients: dict[str, int]


@dataclass(frozen=True)
class Assumed:
    """What was not measured for this model. Each is to be replaced by a figure of one's own.

    Attributes:
        gpu_images_per_s: that a GPU's network labels.
        actors_a_gpu: processes that score on a GPU, as of ``--gpus-per-actor 0.5``.
        decoded_per_s: small images that one such process reads and decodes; its threads share one interpreter.
        photos_per_core_s: photos of 1 to 12 megapixels that a core decodes a second.
        cores_a_gpu: CPU cores beside each GPU.
        growth: 0 to 1, how much of what the driver took more a chunk the more actors there were is its own doing.
        request_s: that an object store takes to answer.
        requests_per_s: that it answers a prefix.
        prefixes: that the images are spread over.
        store_bytes_per_s: from the object store to an actor.
        photo_bytes: of a photo.
        gpu_trained_per_s: images that a GPU trains on.
        trials_a_gpu: at once.
        epochs: a trial.
        rows: of the dataset that is searched and trained on.
        batch: images a GPU and step.
        link_bytes_per_s: between nodes, for gradients.
        link_s: of a message.
    """

    gpu_images_per_s: float = 20_000
    actors_a_gpu: int = 1
    decoded_per_s: float = 17_000
    photos_per_core_s: float = 97
    cores_a_gpu: int = 8
    growth: float = 0
    request_s: float = 0.03
    requests_per_s: float = 5_500
    prefixes: int = 100
    store_bytes_per_s: float = 600e6
    photo_bytes: float = 1e6
    gpu_trained_per_s: float = 10_000
    trials_a_gpu: float = 2
    epochs: int = 26
    rows: int = 28_709
    batch: int = 128
    link_bytes_per_s: float = 1.25e9
    link_s: float = 50e-6


_MAY_BE_0 = ("growth", "request_s", "link_s")


@dataclass(frozen=True)
class Design:
    """What of the code limits it.

    Attributes:
        chunk_files: most files a chunk.
        mergers: processes that make parts; one is the driver.
        listers: processes that list and count.
    """

    chunk_files: int = CHUNK_FILES
    mergers: int = 1
    listers: int = 1


TODAY = Design()
CHANGED = Design(chunk_files=16 * CHUNK_FILES, mergers=32, listers=32)


class Prediction(NamedTuple):
    """Seconds in all, images or trials a second while it works, and what binds."""

    seconds: float
    per_s: float
    binds: str


def chunks_of(images: int, most: int = CHUNK_FILES) -> int:
    """Return how many chunks a listing has; they grow from the first one to the most files."""
    chunks = before = 0
    while before < images and (size := min(most, max(FIRST_CHUNK_FILES, before // GROWTH))) < most:
        chunks, before = chunks + 1, before + size
    return chunks + math.ceil(max(0, images - before) / most)


def score_here(measured: Measured, raylets: int, cores: int, images: int, nodes: int | None = None) -> Prediction:
    """Predict scoring on nodes of one CPU that share the cores of one machine, driver and head among them.

    An actor works no faster than a core does, and all processes together no longer than the cores.

    Args:
        raylets: actors, of one thread each.
        nodes: of Ray; None for one an actor and the head.
    """
    busy = min(raylets, cores)
    actor = images * (measured.core_s[busy] + measured.actor_s[busy])
    others = chunks_of(images) * measured.driver_s + images * measured.merge_s
    alone = actor / raylets + measured.warm_s
    shared = (actor + raylets * measured.warm_s + others) / (cores - measured.node_s * (nodes or 1 + raylets))
    window = max(alone, shared)
    seconds = measured.start_s + images * (measured.listing_s + measured.count_s) + window
    return Prediction(seconds, images / window, "actors" if alone >= shared else "cores")


def ray_cpu_here(measured: Measured, raylets: int, cores: int, images: int) -> float:
    """Predict Ray's share of the CPU time of a job that ``score_here`` predicts."""
    window, busy = images / score_here(measured, raylets, cores, images).per_s, min(raylets, cores)
    ours = images * (measured.core_s[busy] + measured.merge_s) + raylets * measured.warm_s
    of_ray = images * measured.actor_s[busy] + chunks_of(images) * measured.driver_s
    of_ray += window * measured.node_s * (1 + raylets)
    return of_ray / (ours + of_ray)


def lost_here(measured: Measured, raylets: int, cores: int, images: int, nodes: int | None = None) -> float:
    """Predict the share of the images/s of processes without Ray that ``score_here`` lacks."""
    busy = min(raylets, cores)
    bare_s = images * measured.core_s[busy] / busy + measured.warm_s
    return 1 - score_here(measured, raylets, cores, images, nodes).per_s * bare_s / images


def cpu_share(job: dict[str, Any], bare_runs: list[dict[str, Any]], cores: int) -> float:
    """Return Ray's share of a measured job's CPU time: what neither a process without Ray takes nor merging parts."""
    ours = statistics.median(one["cpu_s"] for one in peers(job, bare_runs, cores))
    return 1 - (ours + job["driver_functions"]["merge"]["cpu_s"]) / sum(job["cpu_s"].values())


def peers(job: dict[str, Any], bare_runs: list[dict[str, Any]], cores: int) -> list[dict[str, Any]]:
    """Return the runs without Ray that score the images of a job in as many processes as it has nodes and cores."""
    kind = (job["files"], min(job["raylets"], cores))
    return [one for one in bare_runs if (one["images"], one["processes"]) == kind]


def score_on_gpus(
    measured: Measured,
    assumed: Assumed,
    gpus: int,
    images: int,
    in_store: bool = False,
    photos: bool = False,
    design: Design = TODAY,
) -> Prediction:
    """Predict scoring on GPUs, from and to a disk as fast as the measured one, or an object store."""
    chunks = chunks_of(images, design.chunk_files)
    files = images / chunks
    end_s, waits_s = measured.footer_s * chunks, 0.0
    merge_s = measured.merge_s
    listing_s = measured.listing_s
    if in_store:
        end_s += assumed.request_s + measured.footer_bytes * chunks / assumed.store_bytes_per_s
        waits_s = assumed.request_s * measured.chunk_requests
        merge_s += assumed.request_s * measured.merge_requests / REQUESTS_AT_ONCE / files
        listing_s = measured.entry_s + assumed.request_s / 1000
    actors, of_gpu = gpus * assumed.actors_a_gpu, assumed.gpu_images_per_s / assumed.actors_a_gpu
    cores = assumed.cores_a_gpu / assumed.actors_a_gpu
    decoded = assumed.photos_per_core_s * cores if photos else assumed.decoded_per_s
    slower = "decoding" if decoded < of_gpu else "GPUs"
    image_s = 1 / min(decoded, of_gpu)
    work_s = files * image_s + measured.chunk_s
    of_images = math.ceil(chunks / actors) * max(work_s, (work_s + waits_s) / CHUNKS_AT_ONCE)
    at_few, an_actor = measured.bookkeeping_s
    scoring = {
        "manifest" if end_s > of_images else slower: end_s + of_images,
        "handing out": chunks * (at_few + assumed.growth * an_actor * actors),
        "merging": images * merge_s / design.mergers,
    }
    if in_store and photos:
        scoring["network"] = images * assumed.photo_bytes / assumed.store_bytes_per_s / actors
    if in_store:
        scoring["requests"] = images * measured.image_requests / (assumed.requests_per_s * assumed.prefixes)
    one_by_one = {
        "start": measured.start_s,
        "listing": images * listing_s / design.listers,
        "counting": images * measured.count_s / design.listers,
    }
    slowest = max(scoring.values())
    total = slowest + sum(one_by_one.values())
    every = scoring | one_by_one
    return Prediction(total, images / slowest, max(every, key=lambda name: every[name]))


def search(measured: Measured, assumed: Assumed, gpus: int, trials: int) -> Prediction:
    """Predict a search whose trials all train to their end.

    The driver's seconds a trial are those of the study: Ray Tune's own come to them.
    """
    at_once = min(trials, gpus * assumed.trials_a_gpu)
    sharing = max(1.0, at_once / gpus)
    trial_s = assumed.epochs * assumed.rows / (assumed.gpu_trained_per_s / sharing)
    of_trials = math.ceil(trials / at_once) * trial_s
    base = measured.ask_s[0] + assumed.epochs * measured.epoch_s + measured.complete_s[0]
    of_driver = trials * (base + (measured.ask_s[1] + measured.complete_s[1]) * trials / 2)
    binds = "driver" if of_driver > of_trials else "trials too few" if trials < gpus * assumed.trials_a_gpu else "GPUs"
    total = max(of_trials, of_driver) + measured.start_s
    return Prediction(total, trials / max(of_trials, of_driver), binds)


def writes_per_s(measured: Measured, assumed: Assumed, trials_per_s: float) -> float:
    """Return the transactions that a search's database does a second."""
    return trials_per_s * (measured.trial_writes[0] + assumed.epochs * measured.trial_writes[1])


def all_reduce_s(gradient_bytes: float, workers: int, bytes_per_s: float, message_s: float) -> float:
    """Return the seconds of adding up gradients in a ring, each worker sending 2 (n - 1) / n of them."""
    return 2 * (workers - 1) * (gradient_bytes / workers / bytes_per_s + message_s)


def train(measured: Measured, assumed: Assumed, gpus: int, network: str) -> tuple[float, float, str]:
    """Return the efficiency of a step without and with gradients sent during it, and what binds."""
    compute = assumed.batch / assumed.gpu_trained_per_s
    sending = all_reduce_s(measured.gradients[network], gpus, assumed.link_bytes_per_s, assumed.link_s)
    apart, within = compute / (compute + sending), compute / max(compute, sending)
    few = assumed.rows < gpus * assumed.batch * 10
    return apart, within, "rows: too few steps" if few else "all-reduce" if sending > compute else "GPUs"


def read_measured(raw: dict[str, Any]) -> Measured:
    """Return the constants of what the benchmarks wrote: medians, and straight lines through what grows."""
    files = max(job["files"] for job in raw["scoring"] if job["raylets"] == 1)
    jobs = [job for job in raw["scoring"] if job["files"] == files]
    alone = [job for job in jobs if job["raylets"] == 1]
    bare_runs = [one for one in raw["bare"] if one["images"] <= files]
    bare = {
        count: line([(one["images"], one["cpu_s"]) for one in bare_runs if one["processes"] == count])
        for count in {one["processes"] for one in bare_runs}
    }
    core_s = {count: an_image for count, (_, an_image) in bare.items()}
    warm_s = bare[1][0]

    def actor_s(count: int) -> float:
        spent = statistics.median(job["cpu_s"]["actors"] for job in jobs if job["raylets"] == count)
        return max(0.0, (spent - count * warm_s) / files - core_s[count])

    def of_jobs(value: Any) -> float:
        return statistics.median(value(job) for job in alone)

    def ray_s(job: dict[str, Any]) -> float:
        return sum(seconds for kind, seconds in job["cpu_s"].items() if kind not in ("actors", "driver"))

    merged, stores = raw["merge"], raw["requests"]["requests"]
    of_pieces = sum(count for what, count in stores.items() if what.endswith(" piece"))  # to write one: POST, PUT, POST
    manifest = [(one["chunks"], one["read_first_chunk_cpu_s"]) for one in raw["manifest"]]
    study = [one for one in raw["study"] if one["database"] == "SQLite"]
    writes = {what: study[0]["calls"][f"{what} commits"] for what in ("ask", "report", "complete")}
    return Measured(
        core_s=core_s,
        warm_s=warm_s,
        actor_s={count: actor_s(count) for count in core_s},
        driver_s=of_jobs(
            lambda job: (job["cpu_s"]["driver"] - job["driver_functions"]["merge"]["cpu_s"]) / job["chunks"]
        ),
        node_s=of_jobs(lambda job: ray_s(job) / job["window_s"] / (1 + job["raylets"])),
        start_s=of_jobs(
            lambda job: (
                job["seconds"] - job["window_s"] - job["listing_s"] - job["driver_functions"]["count_parts"]["seconds"]
            )
        ),
        listing_s=raw["listing"]["files_cpu_s"] / raw["listing"]["files"],
        entry_s=raw["listing"]["names_cpu_s"] / raw["listing"]["names"],
        bookkeeping_s=(
            min(one["driver_cpu_s_a_chunk"] for one in raw["bookkeeping"]),
            line([(one["actors"], one["driver_cpu_s_a_chunk"]) for one in raw["bookkeeping"]])[1],
        ),
        merge_s=statistics.median(merged["merge_cpu_s"]) / merged["rows"],
        count_s=statistics.median(merged["count_cpu_s"]) / merged["rows"],
        footer_s=line(manifest)[1],
        footer_bytes=line([(one["chunks"], one["footer_bytes"]) for one in raw["manifest"]])[1],
        chunk_s=statistics.median(seconds for one in raw["manifest"] for seconds in one["read_chunk_cpu_s"]),
        image_requests=(stores["GET image"] + stores["HEAD image"]) / raw["requests"]["files"],
        # The manifest is read once more at the end, for the pictures of some rows.
        chunk_requests=((stores["GET manifest"] + stores["HEAD manifest"]) / 2 + 1.5 * stores["POST piece"])
        / raw["requests"]["chunks"],
        merge_requests=(of_pieces - 1.5 * stores["POST piece"]) / raw["requests"]["chunks"],
        ask_s=line([(one["trials"], one["seconds"]["ask CPU"]) for one in study]),
        epoch_s=statistics.median(one["seconds"]["report CPU"] for one in study),
        complete_s=line([(one["trials"], one["seconds"]["complete CPU"]) for one in study]),
        trial_writes=(writes["ask"] + writes["complete"], writes["report"]),
        gradients=raw["gradients"]["bytes"],
    )


def line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the straight line nearest to points, its value at 0 and its slope, neither below 0."""
    x, y = (statistics.fmean(values) for values in zip(*points, strict=True))
    spread = sum((one - x) ** 2 for one, _ in points)
    slope = max(0.0, sum((one - x) * (value - y) for one, value in points) / spread) if spread else 0.0
    return max(0.0, y - slope * x), slope


def assume(assumed: Assumed, changes: Iterable[str]) -> Assumed:
    """Return assumptions with ``NAME=VALUE`` changes.

    Raises:
        SystemExit: no such assumption, or no number.
    """
    for change in changes:
        name, _, value = change.partition("=")
        if name not in {one.name for one in fields(assumed)}:
            raise SystemExit(f"--assume {change}: known are {', '.join(one.name for one in fields(assumed))}.")
        try:
            number = type(getattr(assumed, name))(float(value))
        except ValueError:
            raise SystemExit(f"--assume {change}: {value!r} is no number.") from None
        if number < 0 or (number == 0 and name not in _MAY_BE_0):
            raise SystemExit(f"--assume {change}: must be above 0.")
        assumed = replace(assumed, **{name: number})
    return assumed
