"""How scoring, searches and training would do on more GPUs and images than there were to measure on.

    python tests/benchmarks/scaling_model.py [--measured scaling_measured.json] [--assume gpu_images_per_s=30000]

Takes measured constants, which ``cluster_scale.py``, ``driver_scale.py`` and ``study_scale.py`` wrote, and assumptions,
which are nobody's measurements and are to be replaced by a reader's own. Prints Markdown tables. A job's time is the
sum of what happens one after the other (start, listing, scoring, counting), and scoring takes as long as the slowest of
what happens at once. What *binds* is the longest of all these.
"""

import argparse
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

CHUNK_FILES, FIRST_CHUNK_FILES, GROWTH, PART_CHUNKS, MERGE_THREADS = 1024, 64, 32, 128, 8  # as in fer_ray.data
GPUS = (1, 8, 64, 512)
IMAGES = (10**6, 10**7, 10**8, 10**9)
TRIALS = (64, 1000, 10_000)
EARLIER = {10_000: 1817, 100_000: 3502, 1_000_000: 3721}
"""Images/s of two actors on one node of two cores by images, as ``RESULTS.md`` has them; nothing else running."""
MEASURED = Path(__file__).parent / "scaling_measured.json"


@dataclass(frozen=True)
class Measured:
    """Constants that were measured; seconds and bytes.

    Seconds of one thread's work are CPU seconds, which other work on a machine changes less.

    Attributes:
        core_s: CPU of a core, by how many processes score at once on the cores, an image, without Ray.
        actor_s: CPU an image that an actor takes more.
        driver_s: CPU of the driver a chunk, merging apart, where actors are slow.
        node_s: CPU a second of Ray's own processes, a node.
        start_s: of a job, before its first chunk and after its last count.
        listing_s: an input in local folders.
        entry_s: an input, written to the manifest without being looked for.
        bookkeeping_s: CPU of the driver a chunk, where actors are fast: with few of them, and more an actor.
        merge_s: of the driver a row, on a local disk.
        count_s: likewise.
        footer_s: to read one chunk of a manifest, a chunk that it has.
        footer_bytes: of the manifest's end, a chunk.
        image_requests: to an object store, an image.
        merge_requests: made at once, a piece that is merged.
        ask_s: to draw a trial: in an empty study, and more a trial that it has.
        epoch_s: to report an epoch.
        complete_s: to close a trial: in an empty study, and more a trial that it has.
        trial_writes: transactions a trial, and more an epoch.
        gradients: bytes by architecture.
    """

    core_s: dict[int, float]
    actor_s: float
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
    image_requests: float
    merge_requests: float
    ask_s: tuple[float, float]
    epoch_s: float
    complete_s: tuple[float, float]
    trial_writes: tuple[float, float]
    gradients: dict[str, int]

    def core_of(self, processes: int) -> float:
        """Return CPU of a core an image where so many processes score; that of one, where no more were measured."""
        return self.core_s.get(processes, self.core_s[1])


@dataclass(frozen=True)
class Assumed:
    """What was not measured for this model. Each is to be replaced by a figure of one's own.

    Attributes:
        gpu_images_per_s: that a GPU's network labels.
        decoded_per_s: small images that one process reads and decodes for its GPU; its threads share one interpreter.
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


@dataclass(frozen=True)
class Design:
    """What of the code limits it.

    Attributes:
        chunk_files: most files a chunk.
        chunks_a_manifest: of one file, all of whose end is read for each chunk; None for one file for a whole listing.
        mergers: processes that make parts; one is the driver.
        deletes_at_once: pieces that are removed at once.
        listers: processes that list and count.
    """

    chunk_files: int = CHUNK_FILES
    chunks_a_manifest: int | None = None
    mergers: int = 1
    deletes_at_once: int = 1
    listers: int = 1


TODAY = Design()
CHANGED = Design(chunk_files=16 * CHUNK_FILES, chunks_a_manifest=1000, mergers=32, deletes_at_once=64, listers=32)


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
    actor = measured.core_of(busy) + measured.actor_s
    others = measured.driver_s * chunks_of(images) / images + measured.merge_s
    left = cores - measured.node_s * (nodes or 1 + raylets)
    alone, shared = raylets / actor, left / (actor + others)
    rate = min(alone, shared)
    seconds = measured.start_s + images * (measured.listing_s + 1 / rate + measured.count_s)
    return Prediction(seconds, rate, "actors" if alone <= shared else "cores")


def cpu_here(measured: Measured, raylets: int, cores: int, images: int, seconds: float) -> tuple[float, float]:
    """Predict the CPU seconds of a job that scores for so long, whatever else runs, and Ray's share of them."""
    ours = images * (measured.core_of(min(raylets, cores)) + measured.merge_s)
    of_ray = (
        images * measured.actor_s + chunks_of(images) * measured.driver_s + seconds * measured.node_s * (1 + raylets)
    )
    return ours + of_ray, of_ray / (ours + of_ray)


def lost_here(measured: Measured, raylets: int, cores: int, images: int, nodes: int | None = None) -> float:
    """Predict the share of the images/s of processes without Ray that ``score_here`` lacks."""
    busy = min(raylets, cores)
    return 1 - score_here(measured, raylets, cores, images, nodes).per_s / (busy / measured.core_of(busy))


def cpu_share(job: dict[str, Any], bare_runs: list[dict[str, Any]], cores: int) -> float:
    """Return Ray's share of a measured job's CPU time: what neither a process without Ray takes nor merging parts."""
    processes = min(job["raylets"], cores)
    peers = [one for one in bare_runs if one["processes"] == processes] or bare_runs
    an_image = statistics.median(one["cpu_s"] / one["images"] for one in peers)
    ours = an_image * job["files"] + job["driver_functions"]["merge"]["cpu_s"]
    return 1 - ours / sum(job["cpu_s"].values())


def score_on_gpus(
    measured: Measured,
    assumed: Assumed,
    gpus: int,
    images: int,
    in_store: bool = False,
    photos: bool = False,
    design: Design = TODAY,
) -> Prediction:
    """Predict scoring with an actor a GPU, from and to a disk as fast as the measured one, or an object store."""
    chunks = chunks_of(images, design.chunk_files)
    files = images / chunks
    read_at_once = min(chunks, design.chunks_a_manifest or chunks)
    chunk_s = measured.footer_s * read_at_once
    merge_s = measured.merge_s
    listing_s = measured.listing_s
    if in_store:
        chunk_s += assumed.request_s + measured.footer_bytes * read_at_once / assumed.store_bytes_per_s
        waits = measured.merge_requests / MERGE_THREADS + 1 / design.deletes_at_once
        merge_s += assumed.request_s * waits / files
        listing_s = measured.entry_s + assumed.request_s / 1000
    decoded = assumed.photos_per_core_s * assumed.cores_a_gpu if photos else assumed.decoded_per_s
    slower = "decoding" if decoded < assumed.gpu_images_per_s else "GPUs"
    image_s = 1 / min(decoded, assumed.gpu_images_per_s)
    actor_s = image_s + chunk_s / files
    at_few, an_actor = measured.bookkeeping_s
    scoring = {
        "manifest" if chunk_s / files > image_s else slower: images * actor_s / gpus,
        "handing out": chunks * (at_few + assumed.growth * an_actor * gpus),
        "merging": images * merge_s / design.mergers,
    }
    if in_store and photos:
        scoring["network"] = images * assumed.photo_bytes / assumed.store_bytes_per_s / gpus
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
    trial_s = assumed.epochs * assumed.rows / (assumed.gpu_trained_per_s / assumed.trials_a_gpu)
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
    jobs, largest = raw["scoring"], max(job["files"] for job in raw["scoring"] if job["raylets"] == 1)
    alone = [job for job in jobs if job["raylets"] == 1 and job["files"] == largest]
    core_s = {
        count: statistics.median(one["cpu_s"] / one["images"] for one in raw["bare"] if one["processes"] == count)
        for count in {one["processes"] for one in raw["bare"]}
    }

    def of_jobs(value: Any) -> float:
        return statistics.median(value(job) for job in alone)

    def ray_s(job: dict[str, Any]) -> float:
        return sum(seconds for kind, seconds in job["cpu_s"].items() if kind not in ("actors", "driver"))

    merged, stores = raw["merge"], raw["requests"]["requests"]
    manifest = [(one["chunks"], statistics.median(one["read_chunk_cpu_s"])) for one in raw["manifest"]]
    study = [one for one in raw["study"] if one["database"] == "SQLite"]
    writes = {what: study[0]["calls"][f"{what} commits"] for what in ("ask", "report", "complete")}
    return Measured(
        core_s=core_s,
        actor_s=max(0.0, of_jobs(lambda job: job["cpu_s"]["actors"] / job["files"]) - core_s[1]),
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
        image_requests=(stores["GET image"] + stores["HEAD image"]) / raw["requests"]["files"],
        merge_requests=(stores["GET piece"] + stores["HEAD piece"]) / raw["requests"]["chunks"],
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


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def duration(seconds: float) -> str:
    """Return seconds as a reader says them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def scoring_table(measured: Measured, assumed: Assumed, design: Design) -> str:
    """Return the predictions for GPUs and images; images/s while scoring, time of the whole job and what binds."""
    kinds = ({}, {"in_store": True}, {"in_store": True, "photos": True})
    rows = []
    for images in IMAGES:
        for gpus in GPUS:
            cells: list[object] = [f"10^{round(math.log10(images))}", gpus]
            for kind in kinds:
                one = score_on_gpus(measured, assumed, gpus, images, design=design, **kind)
                cells.append(f"{one.per_s:,.0f}, {duration(one.seconds)}, {one.binds}")
            rows.append(cells)
    titles = ["images", "GPUs", "small, on a disk", "small, in an object store", "photos, in an object store"]
    return table(titles, rows)


def search_table(measured: Measured, assumed: Assumed) -> str:
    """Return the predictions for searches."""
    rows = []
    for trials in TRIALS:
        for gpus in GPUS:
            one = search(measured, assumed, gpus, trials)
            writes = writes_per_s(measured, assumed, one.per_s)
            rows.append([f"{trials:,}", gpus, duration(one.seconds), f"{writes:,.1f}", one.binds])
    return table(["trials", "GPUs", "time", "transactions/s", "binds"], rows)


def training_table(measured: Measured, assumed: Assumed) -> str:
    """Return the predictions for training on several GPUs."""
    rows = []
    for network in ("fast", "resnet18", "convnext_tiny"):
        for gpus in GPUS:
            apart, within, binds = train(measured, assumed, gpus, network)
            size = f"{measured.gradients[network] / 1e6:.1f} MB"
            rows.append([network, size, gpus, f"{apart:.0%} to {within:.0%}", binds])
    return table(["network", "gradients", "GPUs", "efficiency of a step", "binds"], rows)


def checks_table(measured: Measured, raw: dict[str, Any]) -> str:
    """Return measured scoring jobs beside the predictions for them, given the cores that other work left them."""
    rows = []
    for job in sorted(raw["scoring"], key=lambda job: (job["files"], job["raylets"])):
        raylets, files, window = job["raylets"], job["files"], job["window_s"]
        spent = sum(job["cpu_s"].values())
        cpu_s, of_ray = cpu_here(measured, raylets, raw["cores"], files, window)
        rate = files / cpu_s * spent / window
        rows.append(
            [
                raylets,
                f"{files:,}",
                f"{spent / window:.2f}",
                f"{job['images_per_s']:,.0f}",
                f"{rate:,.0f} ({rate / job['images_per_s'] - 1:+.0%})",
                f"{cpu_share(job, raw['bare'], raw['cores']):.0%}",
                f"{of_ray:.0%}",
                f"{lost_here(measured, raylets, raw['cores'], files):.0%}",
            ]
        )
    titles = ["nodes", "images", "cores it got", "images/s", "predicted", "Ray's share of the CPU time", "predicted"]
    return table([*titles, "of the time with nothing else running, predicted"], rows)


def earlier_table(measured: Measured, cores: int) -> str:
    """Return earlier measurements on one node, without a head apart, beside the predictions for them."""
    rows = []
    for files, rate in EARLIER.items():
        one = score_here(measured, 2, cores, files, nodes=1)
        rows.append([f"{files:,}", f"{rate:,}", f"{one.per_s:,.0f} ({one.per_s / rate - 1:+.0%})"])
    return table(["images", "images/s, measured earlier", "predicted"], rows)


def constants(measured: Measured) -> str:
    """Return the measured constants, a line each."""
    return "\n".join(f"{one.name} {getattr(measured, one.name)}" for one in fields(measured))


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
        assumed = replace(assumed, **{name: number})
    return assumed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=MEASURED)
    parser.add_argument("--assume", nargs="+", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    raw = json.loads(arguments.measured.read_text())
    measured, assumed = read_measured(raw), assume(Assumed(), arguments.assume)
    print(f"## Constants\n\n{constants(measured)}\n")
    print(f"## Checks\n\n{checks_table(measured, raw)}\n")
    print(f"{earlier_table(measured, raw['cores'])}\n")
    print(f"## Scoring as the code is\n\n{scoring_table(measured, assumed, TODAY)}\n")
    print(f"## Scoring, the code changed\n\n{scoring_table(measured, assumed, CHANGED)}\n")
    print(f"## Searches\n\n{search_table(measured, assumed)}\n")
    print(f"## Training\n\n{training_table(measured, assumed)}")


if __name__ == "__main__":
    main()
