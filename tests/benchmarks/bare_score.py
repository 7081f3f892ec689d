"""The work of scoring's actors without Ray: what there is to be had on these cores.

    python -m bare_score OUTPUT --processes 2

OUTPUT is that of a scoring job; its chunks are scored again, as they are listed there, with the network that comes with
the package, by processes of one thread each, and their rows written to a folder of no use. Prints a JSON object: the
images, the seconds from the moment at which all processes have loaded the network, and what all threads spent on what.
"""

import argparse
import json
import multiprocessing
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from fer_ray.scoring.job import ScoringOptions, StageSeconds
from fer_ray.scoring.manifest import listings, read_chunks
from fer_ray.storage.folder import Folder
from fer_ray.weights import SHIPPED_CHECKPOINT


def work(folder: str, batch_size: int, todo: Any, ready: Any, done: Any) -> None:
    """Score chunks from a queue until it is over."""
    from fer_ray.scoring.chunk_scorer import ChunkScorer

    options = ScoringOptions([str(SHIPPED_CHECKPOINT)], "flip", "none", "auto", batch_size, 60)
    scorer = ChunkScorer(Folder.at(folder), options, 1)
    ready.wait()
    images, spent, cpu = 0, StageSeconds(), time.process_time()
    for number, chunk in iter(todo.get, None):
        images += chunk.files
        spent.add(scorer.score(number, chunk).spent)
    done.put((images, time.process_time() - cpu, vars(spent), time.time()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    job = json.loads((arguments.output / "_job.json").read_text())
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as place:
        folder = Folder.at(place)
        for name in listings(Folder.at(arguments.output)):
            shutil.copy(arguments.output / name, place)
        todo, done, ready = context.Queue(), context.Queue(), context.Barrier(arguments.processes + 1)
        for number, chunk in enumerate(chunk for listed in read_chunks(folder) for chunk in listed):
            todo.put((number, chunk))
        for _ in range(arguments.processes):
            todo.put(None)
        processes = [
            context.Process(target=work, args=(place, job["batch_size"], todo, ready, done))
            for _ in range(arguments.processes)
        ]
        for process in processes:
            process.start()
        ready.wait()
        began = time.time()
        ended = [done.get() for _ in processes]
        for process in processes:
            process.join()
    spent = StageSeconds()
    for _, _, one, _ in ended:
        spent.add(StageSeconds(**one))
    print(
        json.dumps(
            {
                "images": sum(images for images, *_ in ended),
                "processes": arguments.processes,
                "seconds": max(moment for *_, moment in ended) - began,
                "cpu_s": sum(cpu for _, cpu, *_ in ended),
                "spent_s": vars(spent),
            }
        )
    )


if __name__ == "__main__":
    main()
