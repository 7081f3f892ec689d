"""The files of a scoring job's rows.

The rows of a chunk are one file, a *part*: ``part-FIRST-LAST.parquet`` or ``.csv``, by the numbers of the chunk's first
and last input. The parts in the output are the state of a job: what they don't cover is left to score.
``fer_ray.scoring.columns`` describes the columns.
"""

import io
import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from fer_ray.scoring.columns import FACE_SCHEMA
from fer_ray.scoring.manifest import Chunk
from fer_ray.storage.output import Output


def part_name(chunk: Chunk, format: str) -> str:
    """Return the name of the file with a chunk's rows."""
    return f"part-{chunk.first:09d}-{chunk.end - 1:09d}.{format}"


def written_chunks(folder: Output, format: str) -> list[Chunk]:
    """Return the chunks whose rows are written, in order."""
    names = (re.fullmatch(rf"part-(\d+)-(\d+)\.{format}", name) for name in folder.names())
    return sorted(Chunk(int(name[1]), int(name[2]) + 1 - int(name[1])) for name in names if name)


def unwritten_chunks(listings: Sequence[Chunk], written: Sequence[Chunk]) -> list[Chunk]:
    """Return what the written chunks leave of the listings."""
    left = list[Chunk]()
    for listing in listings:
        first = listing.first
        for chunk in [one for one in written if listing.first <= one.first < listing.end]:
            left.append(Chunk(first, chunk.first - first))
            first = chunk.end
        left.append(Chunk(first, listing.end - first))
    return [chunk for chunk in left if chunk.files]


def write_part(folder: Output, chunk: Chunk, table: pa.Table, format: str) -> None:
    """Write the rows of a chunk, whole or not at all."""
    sink = io.BytesIO()
    if format == "csv":
        pa_csv.write_csv(table, sink)
    else:
        pq.write_table(table, sink)
    folder.write(part_name(chunk, format), sink.getvalue())


def read_part(folder: Output, chunk: Chunk, format: str, columns: Sequence[str] = FACE_SCHEMA.names) -> pa.Table:
    """Return columns of a part, but for those that it lacks; ``OSError`` or ``ArrowException`` if it can't be read."""
    with folder.open(part_name(chunk, format)) as file:
        if format == "parquet":
            with pq.ParquetFile(file) as opened:
                return opened.read([name for name in columns if name in opened.schema_arrow.names])
        convert = pa_csv.ConvertOptions(column_types={field.name: field.type for field in FACE_SCHEMA})
        parse = pa_csv.ParseOptions(newlines_in_values=True)  # names and messages may hold newlines
        table = pa_csv.read_csv(file, parse_options=parse, convert_options=convert)
    return table.select([name for name in columns if name in table.column_names])
