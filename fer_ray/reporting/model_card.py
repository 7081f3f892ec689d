"""``model_card.md``: what an evaluated network is, what it is for, and what its figures say.

The parts are those of Mitchell et al. 2019 (arXiv 1810.03993). Strengths, weaknesses, opportunities and threats stand
among them, each of their sentences following from measured figures.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fer_ray.config.files import to_yaml
from fer_ray.console.text import amount
from fer_ray.dataset.store import DATASET_FILE, SplitInfo
from fer_ray.inference.scores import METRICS_FILE, PREDICTIONS_FILE
from fer_ray.reporting import card_facts as data
from fer_ray.reporting import card_rules as figures
from fer_ray.reporting.card_facts import Evidence, read_evidence
from fer_ray.reporting.evaluation import confusions
from fer_ray.reporting.evaluation_text import accuracy_text
from fer_ray.reporting.reproduce import describe_machine
from fer_ray.storage.provenance import read_provenance

_MARKS = re.compile(r"([\\`*\[\]<>|])")
_FENCE = "```"


def plain(text: str) -> str:
    """Return text on one line in which nothing is markup."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose cells are plain text; columns that begin with a number are set to the right."""
    rule = ["---:" if rows and rows[0][number][:1].isdigit() else "---" for number in range(len(columns))]
    lines = [map(plain, columns), rule, *(map(plain, row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def code_block(text: str, language: str) -> str:
    """Return text in a fence that is longer than any in it."""
    fence = _FENCE
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


CARD_FILE = "model_card.md"
RULES: dict[str, tuple[Callable[[Evidence], Iterator[str]], ...]] = {
    "Strengths": (
        figures.no_mistakes,
        figures.better_than_one_answer,
        figures.well_found_classes,
        figures.evenly_good,
        figures.believable,
        figures.calibration_helped,
        figures.members_add,
        data.no_copies,
        data.copies_matter_little,
    ),
    "Weaknesses": (
        figures.not_better_than_one_answer,
        figures.missed_classes,
        figures.frequent_confusions,
        figures.wrongly_frequent_answers,
        figures.uneven,
        figures.not_believable,
        data.memorised,
        data.copies_flatter,
    ),
    "Opportunities": (
        figures.augmentation_pays,
        figures.second_answer,
        figures.sure_answers,
        figures.member_to_leave_out,
        data.unweighted,
        data.could_learn_more,
        data.stopped_at_its_best,
    ),
    "Threats": (
        data.rows_that_chose,
        data.nothing_but_copies,
        data.near_copies,
        data.other_training_data,
        data.few_rows,
        data.rare_in_training,
        data.two_labels,
        data.flat_images,
        data.noisy_labels,
    ),
}
_CONFUSIONS_SHOWN = 6
_USE = """\
Made to label a cropped, upright face with the one of {count} expressions that the annotators of its training data would
name: for research, teaching and counts over many images.

Not made to tell what somebody feels: faces show that unreliably (Barrett et al. 2019, doi 10.1177/1529100619832930).
Not for decisions about a person; in the European Union, inferring emotions at work and in schools is prohibited, but
for medical and safety reasons (Regulation (EU) 2024/1689, Article 5)."""
_FACTORS = """\
Figures are given by label{leaks}.
Age, gender, skin colour, pose, light and camera are not recorded in the dataset: how the network fares by them has not
been measured."""
_METRICS = """\
Accuracy is the share of images whose most probable label is the given one, with its 95% interval (Wilson). Macro-F1,
the plain mean of F1 over the labels that have images, shows what accuracy hides where labels are uneven. ECE, the
expected calibration error over 15 bins of confidence (Guo et al. 2017, arXiv 1706.04599), and the negative
log-likelihood (NLL) tell whether probabilities can be believed. All are given by test-time augmentation (TTA), the
views of an image that are averaged."""


def model_cards(folders: Sequence[Path]) -> str:
    """Return the text of ``model_card.md`` for the evaluations among folders, one card after another; empty for none.

    Raises:
        DataError: a file of an evaluation is damaged.
    """
    datasets = [folder for folder in folders if (folder / DATASET_FILE).is_file()]
    marks = (METRICS_FILE, PREDICTIONS_FILE)
    evaluations = [folder for folder in folders if all((folder / mark).is_file() for mark in marks)]
    return "\n---\n\n".join(model_card(folder, folder.name, datasets) for folder in evaluations)


def model_card(folder: Path, name: str, datasets: Sequence[Path] = ()) -> str:
    """Return the model card of an evaluation as Markdown.

    Args:
        folder: what ``evaluate`` wrote.
        name: of the evaluation.
        datasets: folders in which to look for its dataset before the one that it names.

    Raises:
        DataError: one of its files is damaged.
    """
    return card_text(read_evidence(folder, datasets), name, folder)


def card_text(evidence: Evidence, name: str, folder: Path) -> str:
    """Return the model card of what ``read_evidence`` gathered in a folder; arguments as in ``model_card``."""
    architectures = " + ".join(member.architecture for member in evidence.evaluation.members)
    parts = {
        "Model details": _details(evidence),
        "Intended use": _USE.format(count=len(evidence.evaluation.label_names)),
        "Factors": _FACTORS.format(leaks=" and without copies of training images" * _has_leaks(evidence)),
        "Metrics": _METRICS,
        "Evaluation data": _evaluation_data(evidence),
        "Training data": _training_data(evidence),
        "Quantitative analyses": _analyses(evidence),
        "Strengths, weaknesses, opportunities and threats": _swot_text(evidence),
        "How to reproduce": _reproduce(folder),
    }
    title = f"# Model card: {plain(architectures)} for facial expressions ({plain(name)})"
    return "\n\n".join([title, *(f"## {heading}\n\n{text}" for heading, text in parts.items())]) + "\n"


def swot(evidence: Evidence) -> dict[str, list[str]]:
    """Return what the rules have to say, by heading."""
    return {heading: [line for rule in rules for line in rule(evidence)] for heading, rules in RULES.items()}


def _swot_text(evidence: Evidence) -> str:
    parts = [
        f"Of TTA {evidence.evaluation.main_tta} on the {evidence.evaluation.split} split; all from measured figures."
    ]
    for heading, sentences in swot(evidence).items():
        lines = [f"- {plain(sentence)}" for sentence in sentences] or ["None of the figures is of this kind."]
        parts.append(f"### {heading}\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _has_leaks(evidence: Evidence) -> bool:
    return bool(evidence.evaluation.leaked_rows and evidence.evaluation.main.without_leaked)


def _details(evidence: Evidence) -> str:
    columns = ("Network", "Parameters", "Epoch", "Temperature", "Input", "Checkpoint")
    rows = [
        (
            member.architecture,
            f"{member.parameters:,}",
            f"{member.epoch}" + (f" of {info.config.training.epochs}" if info else ""),
            f"{member.temperature:.3f}",
            f"{info.size} × {info.size}, grey" if info else "–",
            member.checkpoint,
        )
        for member, info in zip(evidence.evaluation.members, evidence.trained, strict=True)
    ]
    several = "Their probabilities, each at its temperature, are averaged.\n\n" if len(rows) > 1 else ""
    labels = ", ".join(evidence.evaluation.label_names)
    version = evidence.evaluation.fer_ray_version
    return f"{table(columns, rows)}\n\n{several}Labels: {plain(labels)}. Measured with fer_ray {version}."


def _evaluation_data(evidence: Evidence) -> str:
    evaluation, leaked = evidence.evaluation, evidence.evaluation.leaked_rows
    sentences = [f"The {evaluation.split} split of {evaluation.dataset}: {amount(evaluation.rows, 'labelled image')}."]
    if leaked:
        sentences.append(f"Of them in that dataset's train split too, with the very same pixels: {leaked:,}.")
    fingerprint = f"Fingerprint of the dataset: `{evaluation.dataset_fingerprint}`."
    described = [] if evidence.measured_where_trained else _describe_dataset(evidence)
    return "\n\n".join([*map(plain, [*sentences, *evaluation.notes]), fingerprint, *described])


def _training_data(evidence: Evidence) -> str:
    measured = evidence.evaluation.dataset_fingerprint
    parts = _describe_dataset(evidence) if evidence.measured_where_trained else []
    parts += [
        f"{who} learnt from another prepared dataset than it was measured on, with the fingerprint"
        f" `{info.dataset_fingerprint}`; nothing more is known of it here."
        for who, info in evidence.members
        if info.dataset_fingerprint != measured
    ]
    if not evidence.measured_where_trained:
        own = [who for who, info in evidence.members if info.dataset_fingerprint == measured]
        parts += [f"{who} learnt from the dataset described under Evaluation data." for who in own]
    recipes: dict[str, str] = {}
    for who, info in evidence.members:
        recipes.setdefault(to_yaml(info.config), who)
    parts += [
        f"Recipe of {who[0].lower()}{who[1:]}:\n\n{code_block(recipe, 'yaml')}" for recipe, who in recipes.items()
    ]
    return "\n\n".join(parts)


def _describe_dataset(evidence: Evidence) -> list[str]:
    """Return what is known of the dataset that was measured, as paragraphs."""
    dataset = evidence.dataset
    if dataset is None:
        return [
            f"The dataset is no longer at {plain(evidence.evaluation.dataset)}, so nothing is said of it here:"
            " `fer-ray report` takes its folder beside that of the evaluation."
        ]
    splits = dataset.splits
    rows: list[tuple[str, ...]] = [
        (name, *(f"{held.labels.get(name, 0):,}" for held in splits.values())) for name in dataset.label_names
    ]
    rows += [(title, *(f"{count(held):,}" for held in splits.values())) for title, count in _COUNTS.items()]
    parts = [
        f"From {plain(dataset.source)} ({dataset.source_format}), {dataset.size} × {dataset.size} pixels, grey.",
        table(("Images", *splits), rows),
        *map(plain, dataset.notes),
    ]
    if unusable := dataset.rejected - dataset.dropped_leaks:
        parts.append(f"Images of the source that could not be used: {unusable:,}.")
    if dataset.dropped_leaks:
        parts.append(f"Training images left out, as copies stand in another split: {dataset.dropped_leaks:,}.")
    return parts


_COUNTS: dict[str, Callable[[SplitInfo], int]] = {
    "unlabelled": lambda held: held.unlabelled,
    "all": lambda held: held.rows,
    "exact copies of an earlier image": lambda held: held.duplicates,
    "of these, also in train": lambda held: held.leaked,
    "under two labels": lambda held: held.conflicts,
    "of one flat colour": lambda held: held.flat,
}


def _analyses(evidence: Evidence) -> str:
    evaluation, scores = evidence.evaluation, evidence.scores
    by_tta = [
        (
            f"{name}{what}",
            f"{one.rows:,}",
            accuracy_text(one),
            f"{one.balanced_accuracy:.2%}",
            f"{one.macro_f1:.3f}",
            f"{one.ece:.3f}",
            f"{one.nll:.3f}",
            f"{measured.images_per_s:,.0f}",
        )
        for name, measured in evaluation.tta.items()
        for what, one in (("", measured.official), (", without copies", measured.without_leaked))
        if one and (not what or evaluation.leaked_rows)
    ]
    by_class = [
        (name, f"{one.precision:.3f}", f"{one.recall:.3f}", f"{one.f1:.3f}", f"{one.support:,}")
        for name, one in scores.classes.items()
    ]
    columns = ("TTA", "Images", "Accuracy (95%)", "Balanced accuracy", "Macro-F1", "ECE", "NLL", "Images/s")
    parts = [
        table(columns, by_tta),
        f"Images/s on {evaluation.device}, {evaluation.precision}.",
        f"By label, TTA {evaluation.main_tta}:",
        table(("Label", "Precision", "Recall", "F1", "Images"), by_class),
    ]
    often = [
        (label, predicted, f"{count:,}", f"{share:.1%}")
        for label, predicted, count, share in confusions(scores)[:_CONFUSIONS_SHOWN]
    ]
    if often:
        parts += ["Most frequent confusions:", table(("Label", "Predicted", "Images", "Share of the label"), often)]
    return "\n\n".join(parts)


def _reproduce(folder: Path) -> str:
    provenance = read_provenance(folder)
    if provenance is None:
        return "The command and the machine of this evaluation are not known."
    last = provenance.starts[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last.versions.items())
    commands = code_block("\n".join(start.command for start in provenance.starts), "bash")
    machine = f"{describe_machine(last.hardware)}; {last.hardware.platform}; {versions}"
    return f"{commands}\n\nOn {plain(machine)}."
