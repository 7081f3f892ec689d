"""Print the tables of ``cluster/SCALING.md``: what scoring, searches and training would do on many GPUs.

    python tests/benchmarks/scaling.py [--assume gpu_images_per_s=35000 request_s=0.01]

``Measured`` holds what was measured on two cores of an Intel Xeon with AMX. ``Assumed`` holds what was not measured:
replace it by your own figures. Of the steps that run at the same time the slowest one *binds*.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

GPUS = (1, 8, 64, 512)


@dataclass(frozen=True)
class Measured:
    """Constants that were measured; seconds are CPU seconds of one thread, but for ``start_s``."""

    start_s: float = 4.1  # a scoring job, before its first image and after its last
    list_file_s: float = 2.9e-6  # a file of a local folder
    list_key_s: float = 1.8e-6  # a key of an object store, without the request
    decoded_per_s: float = 17_000  # small images, a process of two threads
    photos_per_core_s: float = 97  # of 1 to 12 megapixels
    image_requests: float = 2.02  # to an object store
    most_threads: int = 16  # of a scoring process that wait for storage; a constant of the code
    draw_s: tuple[float, float] = (20.5e-3, 11.9e-6)  # a trial's parameters, and more for each trial of the study
    report_s: float = 1.5e-3  # an epoch
    close_s: tuple[float, float] = (10.2e-3, 1.7e-6)  # a trial, and more for each trial of the study
    transactions: tuple[int, int] = (16, 1)  # a trial, and more for each epoch
    gradient_mb: tuple[tuple[str, float], ...] = (("fast", 3.8), ("resnet18", 44.7), ("convnext_tiny", 111.3))


@dataclass(frozen=True)
class Assumed:
    """Figures that were not measured."""

    gpu_images_per_s: float = 20_000  # labelled by a GPU
    actors_a_gpu: int = 1  # 2 with --gpus-per-actor 0.5
    cores_a_gpu: int = 8
    request_s: float = 0.03  # answer of an object store
    requests_per_s: float = 550_000  # of an object store: 5,500 for each of 100 prefixes
    store_bytes_per_s: float = 600e6  # from an object store to a scoring process
    photo_bytes: float = 1e6
    gpu_trained_per_s: float = 10_000  # images
    trials_a_gpu: float = 2
    epochs: int = 26
    rows: int = 28_709
    batch: int = 128  # images a GPU and step
    link_bytes_per_s: float = 1.25e9  # between nodes
    message_s: float = 50e-6


MEASURED = Measured()


def score(given: Assumed, gpus: int, images: float, in_store: bool, photos: bool) -> str:
    """Return images/s, the time of the job and what binds."""
    actors = gpus * given.actors_a_gpu
    decoded = MEASURED.photos_per_core_s * given.cores_a_gpu * gpus if photos else MEASURED.decoded_per_s * actors
    rates = {"GPUs": given.gpu_images_per_s * gpus, "decoding": decoded}
    listing_s = images * MEASURED.list_file_s
    if in_store:
        requests_s = MEASURED.image_requests * given.request_s
        rates["waiting for requests"] = actors * MEASURED.most_threads / max(requests_s, 1e-9)
        rates["request rate"] = given.requests_per_s / MEASURED.image_requests
        rates["network"] = given.store_bytes_per_s * actors / given.photo_bytes if photos else float("inf")
        listing_s = images * (MEASURED.list_key_s + given.request_s / 1000)
    slowest = min(rates, key=lambda name: rates[name])
    steps = {slowest: images / rates[slowest], "listing": listing_s, "start": MEASURED.start_s}
    binds = max(steps, key=lambda name: steps[name])
    return f"{float(f'{rates[slowest]:.2g}'):,.0f}, {duration(sum(steps.values()))}, {binds}"


def search(given: Assumed, gpus: int, trials: int) -> tuple[str, str, str]:
    """Return the time of a search whose trials train to their end, transactions a second and what binds."""
    at_once = min(trials, gpus * given.trials_a_gpu)
    trial_s = given.epochs * given.rows / given.gpu_trained_per_s * max(1.0, at_once / gpus)
    rounds = -(-trials // at_once)
    (draw_s, draw_more_s), (close_s, close_more_s) = MEASURED.draw_s, MEASURED.close_s
    driver_s = trials * (draw_s + close_s + given.epochs * MEASURED.report_s)
    driver_s += trials**2 / 2 * (draw_more_s + close_more_s)
    seconds = max(rounds * trial_s, driver_s)
    binds = "driver" if driver_s == seconds else "trials too few" if at_once == trials else "GPUs"
    transactions = trials * (MEASURED.transactions[0] + given.epochs * MEASURED.transactions[1])
    return duration(seconds), f"{transactions / seconds:,.1f}", binds


def train(given: Assumed, gpus: int, gradient_bytes: float) -> tuple[str, str]:
    """Return the efficiency of a step, gradients sent after and during it, and what binds.

    A ring sends 2 (n − 1) / n of the gradients.
    """
    compute = given.batch / given.gpu_trained_per_s
    sending = 2 * (gpus - 1) * (gradient_bytes / gpus / given.link_bytes_per_s + given.message_s)
    few = given.rows < 10 * gpus * given.batch
    binds = "fewer than 10 steps an epoch" if few else "gradients" if sending > compute else "GPUs"
    return f"{compute / (compute + sending):.0%} to {compute / max(compute, sending):.0%}", binds


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    for cells in (titles, ["---"] * len(titles), *rows):
        print("| " + " | ".join(map(str, cells)) + " |")
    print()


def assume(changes: list[str]) -> Assumed:
    """Return the assumptions with ``NAME=VALUE`` changes; raises SystemExit for another name or no number."""
    given, names = Assumed(), [one.name for one in fields(Assumed)]
    for change in changes:
        name, _, value = change.partition("=")
        try:
            if name not in names or not float(value) >= 0:
                raise ValueError
            given = replace(given, **{name: type(getattr(given, name))(float(value))})
        except ValueError:
            raise SystemExit(f"--assume {change}: give NAME=NUMBER, NAME one of {', '.join(names)}.") from None
    return given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assume", nargs="+", default=[], metavar="NAME=VALUE")
    given = assume(parser.parse_args().assume)
    kinds = {"small, on a disk": (False, False), "small, in a store": (True, False), "photos, in a store": (True, True)}
    table(
        ["images", "GPUs", *kinds],
        [
            [f"10^{power}", gpus, *(score(given, gpus, 10**power, *kind) for kind in kinds.values())]
            for power in (7, 9)
            for gpus in GPUS
        ],
    )
    rows = [[f"{trials:,}", gpus, *search(given, gpus, trials)] for trials in (64, 1000, 10_000) for gpus in GPUS]
    table(["trials", "GPUs", "time", "transactions/s", "binds"], rows)
    table(
        ["network", "gradients", "GPUs", "efficiency of a step", "binds"],
        [[name, f"{size} MB", g, *train(given, g, size * 1e6)] for name, size in MEASURED.gradient_mb for g in GPUS],
    )


if __name__ == "__main__":
    main()
