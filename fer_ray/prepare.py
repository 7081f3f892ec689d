"""Stage ``prepare``: read face images of any known format into a prepared dataset (``fer_ray.dataset.store``)."""

import sys

if __name__ == "__main__":
    from fer_ray.cli import main

    main(["prepare", *sys.argv[1:]])

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import ray.data
from ray.data import ExecutionResources

from fer_ray.cluster.connect import connect
from fer_ray.cluster.metrics import count_images
from fer_ray.config.options import PrepareOptions
from fer_ray.config.stage_options import stage
from fer_ray.console.progress import ProgressBar, say
from fer_ray.dataset import quality
from fer_ray.dataset.assemble import Spool, SpooledRows, relabel, take_validation
from fer_ray.dataset.corrections import correct, read_corrections
from fer_ray.dataset.near_duplicates import SMALLEST
from fer_ray.dataset.store import DATASET_FILE, DatasetInfo, PreparedDataset
from fer_ray.dataset.writer import write_dataset
from fer_ray.errors import DataError, UsageError
from fer_ray.reporting.dataset import describe_dataset, draw_dataset
from fer_ray.sources.fer_plus import read_votes
from fer_ray.sources.label_names import parse_name_options
from fer_ray.sources.raw_rows import SOURCE_MISSING, Source
from fer_ray.sources.recognise import open_source
from fer_ray.storage.inputs import local_copy
from fer_ray.storage.output import open_output
from fer_ray.storage.provenance import record_start

_IN_FLIGHT_BYTES = 512 << 20  # limit for decoded rows in Ray's object store, whatever the size of the source


@dataclass(frozen=True)
class PrepareResult:
    """The path or URL of the dataset, and its contents."""

    path: Path | str
    info: DatasetInfo


@stage(PrepareOptions)
def prepare(options: PrepareOptions) -> PrepareResult:
    """Read a source into a prepared dataset. The same source and options give the same bytes, except
    ``provenance.json``.

    Raises:
        UsageError: an option is out of range, or ``dest`` is in use or in the source.
        DataError: the source is missing, of no known format, or has no usable row; or splits or labels are unclear.
    """
    if options.near_duplicates and options.size < SMALLEST:
        raise UsageError(f"--near-duplicates with --size {options.size}: its hash needs {SMALLEST} pixels or more.")
    names = parse_name_options(options.labels, options.splits, options.allow_unknown)
    with open_output(options.dest, inputs=[options.source]) as output:
        _require_unprepared(options.source)
        source = open_source(options.source, options.format, options.seed, names)
        if options.fer_plus and source.format != "csv":
            raise UsageError(
                f"--fer-plus {options.fer_plus}: votes are joined by row number, and {source.name} ({source.format})"
                " has none. Give fer2013.csv as SOURCE, or leave --fer-plus out."
            )
        votes = read_votes(local_copy(options.fer_plus)) if options.fer_plus else None
        corrections = read_corrections(local_copy(options.corrections)) if options.corrections else None
        for note in source.notes:
            say(note)
        with output.whole() as partial, tempfile.TemporaryFile(dir=partial) as pixels:
            record_start(partial)
            spool = Spool(pixels, options.size)
            _read(source, spool)
            rows, notes = spool.rows(source, names)
            names.require_used(source.name)
            if not len(rows.in_order()):
                rejects = rows.rejects()
                first = "; ".join(f"{row['id']}: {row['reason']}" for row in rejects.slice(0, 3).to_pylist())
                raise DataError(f"{source.name}: none of its {len(rejects):,} row(s) can be used. The first: {first}.")
            if votes:
                notes += relabel(source, rows, votes, options.fer_plus_labels)
            notes += [_drop_leaks(source, rows)] if options.drop_leaks else []
            notes += _complete_splits(rows, options.validation_fraction, options.seed)
            if corrections is not None:  # after the splits, so that validation is that of the audited dataset
                notes.append(correct(rows, corrections, options.corrected_splits))
            for note in notes:
                say(note)
            notes += [quality.NEAR_RULE] if options.near_duplicates else []
            findings = quality.find(rows, spool if options.near_duplicates else None)
            info = write_dataset(partial, source, spool, rows, findings, [*source.notes, *notes])
            draw_dataset(partial, info, spool, rows)
            # Last, so that what a kill leaves isn't a dataset.
            (partial / DATASET_FILE).write_text(info.model_dump_json(indent=2) + "\n", encoding="utf-8")
    print(describe_dataset(output.path_or_url, info))
    return PrepareResult(output.file(), info)


command = prepare.run


def _require_unprepared(source: Path | str) -> None:
    try:
        PreparedDataset(source)
    except (DataError, OSError):
        return
    raise DataError(f"{source}: is a prepared dataset already. Use it in `fer-ray train --dataset`.")


def _read(source: Source, spool: Spool) -> None:
    connect()
    blocks = ray.data.from_arrow(source.manifest).map_batches(
        source.read, batch_size=None, batch_format="pyarrow", fn_args=(spool.size,)
    )
    options = blocks.context.execution_options
    options.preserve_order = True
    options.resource_limits = ExecutionResources(object_store_memory=_IN_FLIGHT_BYTES)
    with ProgressBar(f"Reading {source.format}", source.total) as bar:
        for block in blocks.iter_batches(batch_size=None, batch_format="pyarrow"):
            if pc.any(pc.equal(block["reason"], SOURCE_MISSING)).as_py():
                raise DataError(f"{source.name}: {SOURCE_MISSING}. Put it on storage that every node sees.")
            spool.add(block)
            bar.advance(len(block))
            usable = pc.sum(pc.is_null(block["reason"])).as_py()
            count_images("prepare", ok=usable, rejected=len(block) - usable)


def _complete_splits(rows: SpooledRows, validation_fraction: float, seed: int) -> list[str]:
    """Take validation from train if the source has none, and return notes about missing splits."""
    notes = []
    if not len(rows.of_split("train")):
        notes.append("No training split in the source: mean and std are those of all images.")
    elif not len(rows.of_split("validation")):
        moved = take_validation(rows, validation_fraction, seed) if validation_fraction else 0
        notes.append(
            f"No validation split in the source: {moved:,} training images, about {validation_fraction:.0%} of a class"
            f" (seed {seed}), were set aside as one, identical images kept together."
            if moved
            else "No validation split in the source, and none was made."
        )
    if not len(rows.of_split("test")):
        notes.append("No test split in the source, and none was made up: no figure from this dataset is a test figure.")
    return notes


def _drop_leaks(source: Source, rows: SpooledRows) -> str:
    had = len(rows.of_split("train"))
    dropped = quality.drop_leaks(rows)
    if had and dropped == had:
        raise DataError(
            f"{source.name}: --drop-leaks would leave no training row: all {had:,} are also in validation or test."
            " Prepare without it."
        )
    return (
        f"{dropped:,} of {had:,} training images were left out (--drop-leaks) because they are also in validation or"
        " test; rejects.parquet lists them."
    )
