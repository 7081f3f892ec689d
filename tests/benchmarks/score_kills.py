"""Kill a scoring job at random moments, and check that its rows are those of an undisturbed job.

    python tests/benchmarks/score_kills.py --kills 20 [--files 20000]

Kills (SIGKILL) a job in one process, or on Ray the driver, the raylet (the process of Ray on which all work of a
machine depends), or an actor. After the first three the job is resumed; after the last it continues by itself. Some
files are broken.
"""

import random
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from common import DRIVER, RAYLET, kill_options, kill_runs, named, names, resume, stage
from score_images import write_faces

ACTOR = "_ScoringActor"
KINDS = {"process": DRIVER, "driver": DRIVER, "raylet": RAYLET, "actor": ACTOR}
TOLERANCE = 0.02  # of probabilities: batches of another size round otherwise in bfloat16


@dataclass
class Scoring:
    """Jobs that score a folder; ``plain`` is an undisturbed one, to compare with."""

    images: Path
    plain: Path
    how: str = "--ray"

    def is_at_work(self, pid: int, run: Path) -> bool:
        return bool(named(pid, ACTOR)) if self.how == "--ray" else (run / "_job.json").is_file()

    def command(self, run: Path) -> list[str]:
        return stage("score", self.images, "--output", run, "--max-error-rate", 1, self.how, *resume(run))

    def progress(self, run: Path) -> str:
        return f"{len(names(run))} files written"

    def check(self, run: Path) -> None:
        found, expected = _rows(run), _rows(self.plain)
        for column in ("path", "status", "error"):
            assert found[column].equals(expected[column]), f"{run}: column {column} of {len(found):,} rows differs"
        apart = pc.max(pc.abs(pc.subtract(found["confidence"], expected["confidence"]))).as_py()
        assert apart <= TOLERANCE, f"{run}: confidence differs by {apart:.4f}"
        left = [name for name in names(run) - names(self.plain) if not Path(name).name.startswith("part-")]
        assert not left, f"{run}: left over are {left}"


def _rows(output: Path) -> pa.Table:
    """Return the rows of a job, one an input, in the order of their paths."""
    return pa.concat_tables([pq.read_table(part) for part in output.rglob("part-*.parquet")]).sort_by("path")


def main() -> None:
    parser = kill_options(__doc__, KINDS)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--longest", type=float, default=15, help="seconds of work before a kill, at most")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        work = Scoring(Path(folder) / "images", Path(folder) / "undisturbed")
        for file in write_faces(work.images, arguments.files)[::500]:
            file.write_bytes(b"no image")
        subprocess.run(work.command(work.plain), check=True, capture_output=True)
        for kind in arguments.kinds:
            work.how = "--no-ray" if kind == "process" else "--ray"
            kill_runs(work, kind, KINDS[kind], arguments.kills, Path(folder), arguments.longest)


if __name__ == "__main__":
    main()
