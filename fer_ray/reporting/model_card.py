"""Write ``model_card.md``: what an evaluated network is, what it is for, and how well it does.

The sections are those of Mitchell et al. 2019 (arXiv 1810.03993), with strengths, weaknesses, opportunities and
threats.
"""

from collections.abc import Sequence
from pathlib import Path

from fer_ray.config.files import to_yaml
from fer_ray.console.progress import say
from fer_ray.dataset.store import DATASET_FILE, DatasetInfo, PreparedDataset
from fer_ray.errors import DataError
from fer_ray.inference.checkpoint import CheckpointInfo
from fer_ray.inference.scores import Evaluation, read_evaluation
from fer_ray.reporting import evaluation_tables as tables
from fer_ray.reporting.card_findings import CardFacts, findings
from fer_ray.reporting.dataset import split_table
from fer_ray.reporting.html import escape_markdown, load_template
from fer_ray.reporting.reproduce import describe_machine
from fer_ray.sources.split_names import SPLITS
from fer_ray.storage.inputs import INFO_FILE, WEIGHTS_FILE, local_copy
from fer_ray.storage.json_files import read_json
from fer_ray.storage.provenance import Provenance, read_provenance

CARD_FILE = "model_card.md"


def model_card(folder: Path, name: str, datasets: Sequence[Path] = ()) -> str:
    """Return the model card of an evaluation as Markdown.

    Args:
        folder: an evaluation.
        name: name of the evaluation.
        datasets: folders in which to look for its dataset before its own path.

    Raises:
        DataError: a file of the evaluation is damaged.
    """
    evaluation = read_evaluation(folder)
    trained = tuple(_read_info(_copy(member.checkpoint, (WEIGHTS_FILE,))) for member in evaluation.members)
    dataset = _find_dataset(evaluation, (*datasets, _copy(evaluation.dataset, SPLITS)))
    return render_card(CardFacts(evaluation, dataset, trained), name, read_provenance(folder))


def render_card(facts: CardFacts, name: str, provenance: Provenance | None) -> str:
    """Return the model card with these facts; ``name`` is the evaluation's."""
    recipes: dict[str, str] = {}
    for who, info in facts.members:
        recipes.setdefault(to_yaml(info.config), who)
    return load_template("model_card.md.j2", finalize=escape_markdown).render(
        facts=facts,
        evaluation=facts.evaluation,
        name=name,
        tables=tables,
        splits=split_table(facts.dataset) if facts.dataset else None,
        recipes=recipes,
        findings=findings(facts),
        starts=provenance.starts if provenance else [],
        describe_machine=describe_machine,
    )


def _copy(path_or_url: str, leave_out: Sequence[str]) -> Path:
    """Return a local path that may no longer exist."""
    try:
        return local_copy(path_or_url, leave_out)
    except DataError as error:
        say(str(error))
        return Path(path_or_url)


def _find_dataset(evaluation: Evaluation, folders: Sequence[Path]) -> DatasetInfo | None:
    infos = (PreparedDataset(folder).info for folder in folders if (folder / DATASET_FILE).is_file())
    return next((info for info in infos if info.fingerprint == evaluation.dataset_fingerprint), None)


def _read_info(checkpoint: Path) -> CheckpointInfo | None:
    file = checkpoint / INFO_FILE
    return read_json(CheckpointInfo, file, "Remove it, or train again.") if file.is_file() else None
