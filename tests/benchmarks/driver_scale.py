"""What grows with a scoring job though no more actors can share it: the driver's work, the manifest, storage requests.

    python tests/benchmarks/driver_scale.py --json scaling_measured.json

``bookkeeping``: chunks/s that the driver and Ray Data hand out to actors that do nothing, on one node of so many CPUs,
and the driver's CPU seconds a chunk. ``merge``: seconds in which a part of 128 pieces is made and in which its rows are
counted in the end, on the local disk. ``manifest``: bytes of a manifest's end, and CPU seconds that an actor takes to
read its first chunk, and with it that end, and others, by the number of chunks; these have one input each, as the end
grows with chunks alone.
``requests``: to an object store, of a job that reads images there and writes there, by what they are for.
"""

import argparse
import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pyarrow.parquet as pq
from cluster_scale import BENCHMARKS, MIB, keep
from object_store import BUCKET, Faults, running_store
from ray_nodes import REPOSITORY, running_nodes
from scaling_tables import span
from score_images import write_faces

from fer_ray.cluster import connect
from fer_ray.emotions import EMOTIONS
from fer_ray.scoring import manifest, on_ray, parts
from fer_ray.scoring.containers import Entry
from fer_ray.scoring.inputs import check_inputs, list_entries
from fer_ray.scoring.job import ChunkResult, ScoringOptions, StageSeconds
from fer_ray.scoring.manifest import CHUNK_FILES, Chunk
from fer_ray.scoring.parts import PART_CHUNKS, OutputPart, ScoredRow
from fer_ray.scoring.totals import count_parts
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.storage.folder import Folder

NAME = "bucket-of-pictures/2026/{:02d}/{:09d}.jpg"  # as long as names are


class IdleActor:
    """Says of each chunk at once that it is done."""

    def __init__(self, folder: str, options: ScoringOptions, threads: int) -> None:
        pass

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        number = int(batch["chunk"][0])
        scored = ChunkResult(Counter(ok=int(batch["files"][0])), StageSeconds())
        return {"done": [pickle.dumps(on_ray.Done(number, scored, time.time(), "float32", 128))]}


def drive(actors: int, chunks: int) -> dict[str, float]:
    """Hand out chunks, as the driver of a job; the first third, in which actors start, isn't counted."""
    on_ray._ScoringActor = IdleActor  # type: ignore[assignment,misc]
    connect.connect()
    options = ScoringOptions([], "none", "none", "auto", None, 60)
    todo = {number: Chunk("_manifest-0000.parquet", number, CHUNK_FILES) for number in range(chunks)}
    begun = cpu = 0.0
    planned = on_ray.ActorPlan(actors, 1, 0)
    for count, _ in enumerate(on_ray.score_chunks(Folder.at("/nowhere"), options, todo, planned), 1):
        if count == chunks // 3:
            begun, cpu = time.perf_counter(), time.process_time()
    total, cpu = time.perf_counter() - begun, time.process_time() - cpu
    counted = chunks - chunks // 3
    return {"actors": actors, "chunks": counted, "chunks_per_s": counted / total, "driver_cpu_s_a_chunk": cpu / counted}


def bookkeeping(actors: int, chunks: int) -> dict[str, float]:
    """Return what ``drive`` measures on a node of so many CPUs."""
    with running_nodes(head_cpus=0) as nodes:
        nodes.add(cpus=actors)
        paths = os.pathsep.join([nodes.environment["PYTHONPATH"], str(REPOSITORY / "tests"), str(BENCHMARKS)])
        driver = nodes.driver(
            "driver_scale", "--drive", actors, chunks, stdout=-1, env=nodes.environment | {"PYTHONPATH": paths}
        )
        said, _ = driver.communicate()
    if driver.returncode:
        sys.exit(f"the driver ended with {driver.returncode}")
    measured: dict[str, float] = json.loads(next(line for line in said.splitlines() if line.startswith(b"{")))
    return measured  # whatever Ray prints around it


def merge_seconds(repeats: int) -> dict[str, Any]:
    """Return what it takes to make a whole part, and to count its rows."""
    generator, rows = np.random.default_rng(0), CHUNK_FILES
    seconds, cpu_s, counting, counting_cpu_s = list[float](), list[float](), list[float](), list[float]()
    with tempfile.TemporaryDirectory() as place:
        folder = Folder.at(place)
        part = OutputPart(0, {number: Chunk("", number, rows) for number in range(PART_CHUNKS)})
        for _ in range(repeats):
            for chunk in part.chunks:
                p = generator.dirichlet(np.ones(len(EMOTIONS)), rows).astype(np.float32)
                names = [ScoredRow(f"{place}/{NAME.format(chunk, row)}".encode(), None) for row in range(rows)]
                entropy = -(p * np.log(p + 1e-9)).sum(1)
                parts.write_piece(folder, chunk, names, p, entropy, p.std(1), "float32", False)
            pieces = sum(one.stat().st_size for one in (Path(place) / parts.PIECES).iterdir())
            began, cpu = time.perf_counter(), time.process_time()
            parts.merge(folder, part, "parquet")
            seconds.append(time.perf_counter() - began)
            cpu_s.append(time.process_time() - cpu)
            part_bytes = (Path(place) / part.name("parquet")).stat().st_size
            began, cpu = time.perf_counter(), time.process_time()
            count_parts(folder, [part], "parquet")
            counting.append(time.perf_counter() - began)
            counting_cpu_s.append(time.process_time() - cpu)
    files = part.files
    return {
        "rows": files,
        "chunks": len(part.chunks),
        "merge_s": seconds,
        "merge_cpu_s": cpu_s,
        "count_s": counting,
        "count_cpu_s": counting_cpu_s,
        "piece_bytes_a_row": pieces / files,
        "part_bytes_a_row": part_bytes / files,
    }


def _read_manifest(place: str, name: str, answer: Any) -> None:
    """Read a list's chunks as the driver does, then some as an actor does, in a process of its own."""
    folder, process = Folder.at(place), psutil.Process()
    manifest.ChunkReader(folder).read(Chunk(name, 0, 1))  # warms up
    before, began = process.memory_info().rss, time.perf_counter()
    (chunks,) = manifest.read_chunks(folder)
    listed = time.perf_counter() - began
    grown = process.memory_info().rss - before
    reader, cpu_s = manifest.ChunkReader(folder), list[float]()
    for chunk in chunks[:: max(1, len(chunks) // 6)][:6]:
        cpu = time.process_time()
        reader.read(chunk)
        cpu_s.append(time.process_time() - cpu)
    answer.put((listed, grown / MIB, cpu_s[0], cpu_s[1:]))


def manifest_cost(chunks: int) -> dict[str, Any]:
    """Return what a manifest of so many chunks takes."""
    with tempfile.TemporaryDirectory() as place:
        folder = Folder.at(place)
        began = time.perf_counter()
        manifest.CHUNK_FILES = manifest._FIRST_CHUNK_FILES = 1
        try:
            manifest.add_listing(folder, (Entry(NAME.format(0, row).encode()) for row in range(chunks)), False)
        finally:
            manifest.CHUNK_FILES, manifest._FIRST_CHUNK_FILES = CHUNK_FILES, 64
        written = time.perf_counter() - began
        (name,) = manifest.listings(folder)
        file = Path(place) / name
        end = file.read_bytes()[-8:-4]
        context = multiprocessing.get_context("spawn")
        answer = context.Queue()
        process = context.Process(target=_read_manifest, args=(place, name, answer))
        process.start()
        listed, grown, first_cpu_s, cpu_s = answer.get()
        process.join()
        return {
            "chunks": chunks,
            "write_s": written,
            "footer_bytes": int.from_bytes(end, "little"),
            "driver_read_s": listed,
            "driver_mib": grown,
            "read_first_chunk_cpu_s": first_cpu_s,
            "read_chunk_cpu_s": cpu_s,
        }


def listing_cost(names: int, files: int) -> dict[str, float]:
    """Return what it takes to write so many names to a manifest, and to find so many files and write theirs."""

    def listed(entries: Iterable[Entry]) -> tuple[float, float, int]:
        with tempfile.TemporaryDirectory() as place:
            began, cpu = time.perf_counter(), time.process_time()
            manifest.add_listing(Folder.at(place), entries, False)
            took, used = time.perf_counter() - began, time.process_time() - cpu
            return took, used, sum(one.stat().st_size for one in Path(place).iterdir())

    names_s, names_cpu_s, size = listed(Entry(NAME.format(n % 100, n).encode()) for n in range(names))
    with tempfile.TemporaryDirectory() as images:
        write_faces(Path(images), files, None)
        files_s, files_cpu_s, _ = listed(list_entries(check_inputs([images]), lambda: None))
    return {
        "names": names,
        "names_s": names_s,
        "names_cpu_s": names_cpu_s,
        "bytes_a_name": size / names,
        "files": files,
        "files_s": files_s,
        "files_cpu_s": files_cpu_s,
    }


def requests(files: int) -> dict[str, Any]:
    """Return how many requests a job makes of an object store, by method and by what for."""
    counted, plain = Counter[str](), Faults.around
    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    def around(self: Faults, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        answered = plain(self, app)

        def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
            path = environ["PATH_INFO"]
            names = {"images/": "image", "/_manifest": "manifest", "/_pieces/": "piece", "/part-": "part"}
            of = next((what for key, what in names.items() if key in path), "other")
            counted[f"{environ['REQUEST_METHOD']} {of}"] += 1
            return answered(environ, start)

        return answer

    Faults.around = around  # type: ignore[method-assign]
    with running_store() as store:
        faces = synthetic_faces(100, seed=0)[0]
        encoded = [cv2.imencode(".jpg", face)[1].tobytes() for face in faces]
        for number in range(files):
            store.put(f"images/{number:06d}.jpg", encoded[number % len(encoded)])
        counted.clear()
        output = f"s3://{BUCKET}/labels"
        command = [sys.executable, "-m", "fer_ray.score", f"s3://{BUCKET}/images", "--output", output]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        counts = dict(counted)
        names = [key for key in store.keys("labels") if key.startswith("_manifest")]
        chunks = pq.read_metadata(f"{BUCKET}/labels/{names[0]}", filesystem=store.filesystem).num_row_groups
    Faults.around = plain  # type: ignore[method-assign]
    return {"files": files, "chunks": chunks, "requests": dict(sorted(counts.items()))}


def _sections(arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    if "merge" in arguments.only:
        yield "merge", merge_seconds(arguments.repeats)
    if "listing" in arguments.only:
        yield "listing", listing_cost(1_000_000, 100_000)
    if "manifest" in arguments.only:
        yield "manifest", [manifest_cost(chunks) for chunks in arguments.chunks]
    if "bookkeeping" in arguments.only:
        yield "bookkeeping", [bookkeeping(actors, arguments.handed_out) for actors in arguments.actors]
    if "requests" in arguments.only:
        yield "requests", requests(arguments.files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = ("merge", "listing", "manifest", "bookkeeping", "requests")
    parser.add_argument("--only", nargs="+", choices=sections, default=sections)
    parser.add_argument("--repeats", type=int, default=5, help="parts to merge")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="of the manifests")
    parser.add_argument("--actors", type=int, nargs="+", default=[4, 16, 32], help="that do nothing")
    parser.add_argument("--handed-out", type=int, default=6000, help="chunks, to actors that do nothing")
    parser.add_argument("--files", type=int, default=3000, help="in the object store")
    parser.add_argument("--json", type=Path, help="to add the measurements to")
    parser.add_argument("--drive", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.drive:
        print(json.dumps(drive(*arguments.drive)))
        return
    for name, measured in _sections(arguments):
        for line in measured if isinstance(measured, list) else [measured]:
            shown = {key: span(value, "{:.4g}") if isinstance(value, list) else value for key, value in line.items()}
            print(f"{name}: {shown}", flush=True)
        keep(arguments.json, **{name: measured})


if __name__ == "__main__":
    main()
