"""The tables of ``cluster/SCALING.md``: what was measured, and what ``scaling_model.py`` predicts from it.

    python tests/benchmarks/scaling_tables.py [--measured scaling_measured.json] [--assume gpu_images_per_s=30000]

Prints Markdown. ``--update FILE`` writes each table into a document instead, after the line ``<!-- NAME -->`` there.
"""

import argparse
import json
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from scaling_model import (
    CHANGED,
    TODAY,
    Assumed,
    Design,
    Measured,
    assume,
    cpu_share,
    lost_here,
    peers,
    ray_cpu_here,
    read_measured,
    score_here,
    score_on_gpus,
    search,
    train,
    writes_per_s,
)

GPUS = (1, 8, 64, 512)
IMAGES = (10**6, 10**7, 10**8, 10**9)
TRIALS = (64, 1000, 10_000)
EARLIER = {10_000: 2891, 100_000: 3707, 1_000_000: 3720}
"""Images/s of two actors on one node of two cores by images, as ``RESULTS.md`` has them; nothing else running."""
MEASURED = Path(__file__).parent / "scaling_measured.json"


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
                cells.append(f"{float(f'{one.per_s:.2g}'):,.0f}, {duration(one.seconds)}, {one.binds}")
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
    """Return measured scoring jobs, means of repeats, beside the predictions for them."""
    cores, jobs = raw["cores"], sorted(raw["scoring"], key=lambda job: (job["files"], job["raylets"]))
    rows = []
    for (files, raylets), group in groupby(jobs, key=lambda job: (job["files"], job["raylets"])):
        same = list(group)
        rate = statistics.fmean(job["images_per_s"] for job in same)
        bare_rate = statistics.fmean(one["images_per_s"] for one in peers(same[0], raw["bare"], cores))
        one = score_here(measured, raylets, cores, files)
        rows.append(
            [
                f"{files:,}",
                raylets,
                f"{bare_rate:,.0f}",
                f"{rate:,.0f} (n = {len(same)})",
                f"{one.per_s:,.0f} ({one.per_s / rate - 1:+.0%})",
                f"{1 - rate / bare_rate:.0%}",
                f"{lost_here(measured, raylets, cores, files):.0%}",
                f"{statistics.fmean(cpu_share(job, raw['bare'], cores) for job in same):.0%}",
                f"{ray_cpu_here(measured, raylets, cores, files):.0%}",
            ]
        )
    titles = ["images", "nodes", "images/s without Ray", "images/s", "predicted"]
    return table([*titles, "Ray's share of the time", "predicted", "of the CPU time", "predicted"], rows)


def earlier_table(measured: Measured, cores: int) -> str:
    """Return earlier measurements on one node, without a head apart, beside the predictions for them."""
    rows = []
    for files, rate in EARLIER.items():
        one = score_here(measured, 2, cores, files, nodes=1)
        rows.append([f"{files:,}", f"{rate:,}", f"{one.per_s:,.0f} ({one.per_s / rate - 1:+.0%})"])
    return table(["images", "images/s, measured earlier", "predicted"], rows)


def measured_table(measured: Measured, raw: dict[str, Any]) -> str:
    """Return what the benchmarks measured, in units to read."""
    return table(
        ["what", "measured"], [*_scored(measured, raw), *_driven(raw), *_stored(measured, raw), *_studied(raw)]
    )


def _scored(measured: Measured, raw: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for images, processes in sorted({(one["images"], one["processes"]) for one in raw["bare"]}):
        same = [one for one in raw["bare"] if (one["images"], one["processes"]) == (images, processes)]
        rates = span((one["images_per_s"] for one in same), "{:,.0f}")
        yield f"without Ray, {images:,} images, processes of one thread: {processes}; images/s", rates
    for processes, seconds in sorted(measured.core_s.items()):
        yield f"CPU of {processes} of them at once, µs an image", f"{1e6 * seconds:.0f}"
    yield "CPU of each for its first batches more, s", f"{measured.warm_s:.2f}"
    alone = [job for job in raw["scoring"] if job["raylets"] == 1]
    alone = [job for job in alone if job["files"] == max(job["files"] for job in alone)]
    for stage in ("reading", "decoding", "predicting", "writing"):
        of_stage = (1e6 * job["actor_stages_s"][stage] / job["files"] for job in alone)
        yield f"an actor alone, {stage}, µs an image", span(of_stage, "{:.0f}")
    for actors, seconds in sorted(measured.actor_s.items()):
        yield f"CPU of {actors} actors at once beyond that, µs an image", f"{1e6 * seconds:.0f}"
    yield "CPU of the driver beside one actor, merging apart, ms a chunk", f"{1e3 * measured.driver_s:.1f}"
    yield "cores that Ray's own processes keep busy, a node", f"{measured.node_s:.3f}"
    for files in sorted({job["files"] for job in raw["scoring"]}):
        jobs = [job for job in raw["scoring"] if job["files"] == files]
        yield (
            f"{files:,} images: driver's memory; object stores, a node; manifest and parts",
            f"{max(job['driver_mib'] for job in jobs):.0f} MiB;"
            f" {max(job['object_stores_mib'] / (job['raylets'] + 1) for job in jobs):.0f} MiB;"
            f" {jobs[0]['manifest_bytes'] / 1e6:.2f} and {jobs[0]['parts_bytes'] / 1e6:.1f} MB",
        )


def _driven(raw: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for one in raw["bookkeeping"]:
        yield (
            f"driver and {one['actors']:.0f} actors that do nothing: chunks/s on these two cores; CPU of the driver, ms"
            " a chunk",
            f"{one['chunks_per_s']:.0f}; {1e3 * one['driver_cpu_s_a_chunk']:.2f} (n = 1, {one['chunks']:,.0f} chunks)",
        )
    merged, listing = raw["merge"], raw["listing"]
    millions = merged["rows"] / 1e6
    for what, name in (("merging parts in the driver", "merge"), ("counting rows at the end", "count")):
        spent = (seconds / millions for seconds in merged[f"{name}_cpu_s"])
        yield f"{what}, CPU seconds a million rows", span(spent, "{:.2f}")
    yield "bytes a row: pieces; parts", f"{merged['piece_bytes_a_row']:.0f}; {merged['part_bytes_a_row']:.0f}"
    yield (
        "writing a manifest, CPU µs a name; bytes a name; finding files too, µs",
        f"{1e6 * listing['names_cpu_s'] / listing['names']:.1f}; {listing['bytes_a_name']:.1f};"
        f" {1e6 * listing['files_cpu_s'] / listing['files']:.1f}"
        f" (n = 1, {listing['names']:,} and {listing['files']:,})",
    )
    for one in raw["manifest"]:
        chunks = span((1e3 * seconds for seconds in one["read_chunk_cpu_s"]), "{:.1f}")
        yield (
            f"manifest of {one['chunks']:,} chunks: its end; CPU to read the first chunk with it, and others, ms; the"
            " driver's seconds to read all, and memory",
            f"{one['footer_bytes'] / 1e6:.1f} MB; {1e3 * one['read_first_chunk_cpu_s']:.0f}, {chunks};"
            f" {one['driver_read_s']:.2f}, {one['driver_mib']:.0f} MiB",
        )


def _stored(measured: Measured, raw: dict[str, Any]) -> Iterable[tuple[str, str]]:
    counts, chunks = raw["requests"]["requests"], raw["requests"]["chunks"]
    manifest = sum(count for what, count in counts.items() if what.endswith(" manifest"))
    yield (
        "object store, requests: an image; to write a piece; to read and remove it; of the manifest, a chunk",
        f"{measured.image_requests:.2f}; {1.5 * counts['POST piece'] / chunks:.1f}; {measured.merge_requests:.1f};"
        f" {manifest / chunks:.1f}",
    )


def _studied(raw: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for one in raw["study"]:
        spent = ", ".join(f"{1e3 * one['seconds'][f'{what} CPU']:.1f}" for what in ("ask", "report", "complete"))
        name = f"{one['database']}, study of {one['trials']:,} trials"
        yield f"{name}, CPU ms: draw, report an epoch, close", f"{spent} (medians of 20, 40, 20)"
    calls = raw["study"][-1]["calls"]
    commits, writes, reads = (
        f"{calls[f'ask {kind}'] + calls[f'complete {kind}']:.0f}" for kind in ("commits", "writes", "reads")
    )
    yield (
        "transactions (statements that write, that read) a trial; an epoch",
        f"{commits} ({writes}, {reads}); {calls['report commits']:.0f} ({calls['report writes']:.0f},"
        f" {calls['report reads']:.0f})",
    )
    gradients = raw["gradients"]
    reduced = span((1e3 * seconds for seconds in gradients["fast_all_reduce_s"]), "{:.1f}")
    yield "adding up the gradients of `fast`, 3.8 MB, two processes through gloo, ms", reduced
    sizes = sorted(gradients["bytes"].items(), key=lambda item: item[1])
    yield "gradients, MB", ", ".join(f"`{name}` {size / 1e6:.1f}" for name, size in sizes)


def span(values: Iterable[float], shown: str) -> str:
    """Return a median, the least and the most of values, each formatted as ``shown``, and how many there are."""
    every = list(values)
    if len(every) == 1:
        return f"{shown.format(every[0])} (n = 1)"
    least, middle, most = (shown.format(one) for one in (min(every), statistics.median(every), max(every)))
    return f"{middle} ({least} to {most}, n = {len(every)})"


def assumptions_table(assumed: Assumed) -> str:
    """Return the assumptions and what they mean."""
    what = dict(re.findall(r"^ {8}(\w+): (.*)\.$", Assumed.__doc__ or "", re.MULTILINE))
    values = {name: f"{value:,.6f}".rstrip("0").rstrip(".") for name, value in vars(assumed).items()}
    rows = [[f"`{name}`", value, what[name]] for name, value in values.items()]
    return table(["name", "value", "what"], rows)


def all_tables(raw: dict[str, Any], assumed: Assumed) -> dict[str, str]:
    """Return every table by its name."""
    measured = read_measured(raw)
    return {
        "measured": measured_table(measured, raw),
        "checks": checks_table(measured, raw),
        "earlier": earlier_table(measured, raw["cores"]),
        "scoring": scoring_table(measured, assumed, TODAY),
        "scoring, changed": scoring_table(measured, assumed, CHANGED),
        "searches": search_table(measured, assumed),
        "training": training_table(measured, assumed),
        "assumptions": assumptions_table(assumed),
    }


def updated(document: str, tables: dict[str, str]) -> str:
    """Return a document with its tables, each after a line ``<!-- NAME -->``, replaced.

    Raises:
        SystemExit: it has no place for one.
    """
    for name, text in tables.items():
        mark = f"<!-- {name} -->\n\n"
        before, found, after = document.partition(mark)
        if not found:
            raise SystemExit(f"There is no line <!-- {name} -->.")
        rest = re.sub(r"\A(\|[^\n]*\n)*\n*", "", after)
        document = f"{before}{mark}{text}\n\n{rest}"
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=MEASURED)
    parser.add_argument("--assume", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--update", type=Path, metavar="FILE", help="write the tables into a document")
    arguments = parser.parse_args()
    if not arguments.measured.is_file():
        parser.error(f"--measured {arguments.measured}: no such file. The benchmarks write it by --json.")
    raw = json.loads(arguments.measured.read_text())
    tables = all_tables(raw, assume(Assumed(), arguments.assume))
    if arguments.update:
        arguments.update.write_text(updated(arguments.update.read_text(), tables))
        return
    for name, text in tables.items():
        print(f"## {name.capitalize()}\n\n{text}\n")


if __name__ == "__main__":
    main()
