"""Write ``model_card.md``: what an evaluated network is, what it is for, and how well it does.

The sections are those of Mitchell et al. 2019 (arXiv 1810.03993), with strengths, weaknesses, opportunities and
threats. The template holds all sentences and their conditions; a sentence about a class needs ``_ENOUGH`` images.
"""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from fer_ray.config.files import to_yaml
from fer_ray.console.text import amount, points
from fer_ray.dataset.store import DatasetInfo
from fer_ray.inference.checkpoint import CheckpointInfo
from fer_ray.inference.scores import Evaluation, wilson_interval
from fer_ray.reporting import evaluation_tables as tables
from fer_ray.reporting.dataset import split_table
from fer_ray.reporting.html import escape_markdown, load_template
from fer_ray.reporting.reproduce import describe_machine
from fer_ray.storage.provenance import Start

CARD_FILE = "model_card.md"
_ENOUGH = 20
"""Images of a class below which no sentence judges it: the 95% interval of a share is then wider than 40 points."""
_SURE_ACCURACY, _SURE_SHARE = 0.9, 0.1
_FER2013_TRAIN = (3995, 436, 4097, 7215, 4830, 3171, 4965)


def model_card(
    evaluation: Evaluation, dataset: DatasetInfo, members: Sequence[CheckpointInfo], name: str, start: Start
) -> str:
    """Return the model card of an evaluation as Markdown.

    ``dataset`` was evaluated, ``members`` say how each network was trained, ``start`` is the command that measured.
    """
    who = [f"Network {number}" for number in range(1, len(members) + 1)] if len(members) > 1 else ["The network"]
    recipes: dict[str, str] = {}
    for network, info in zip(who, members, strict=True):
        recipes.setdefault(to_yaml(info.config), network)
    template = load_template("model_card.md.j2", finalize=escape_markdown)
    return template.render(
        **_figures(evaluation),
        evaluation=evaluation,
        dataset=dataset,
        members=list(zip(who, members, strict=True)),
        trained_here=all(info.dataset_fingerprint == evaluation.dataset_fingerprint for info in members),
        is_fer2013="train" in dataset.splits and tuple(dataset.splits["train"].labels.values()) == _FER2013_TRAIN,
        name=name,
        recipes=recipes,
        splits=split_table(dataset),
        start=start,
        machine=describe_machine(start.hardware),
        tables=tables,
        amount=amount,
        points=points,
    )


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    """Return the figures of the card's sentences that ``metrics.json`` doesn't have."""
    scores, bins = evaluation.main.official, [one for one in evaluation.main.reliability if one.rows]
    confidences = [(one.rows, one.confidence or 0.0) for one in bins]
    # With perfect calibration, accuracy in a bin still deviates from its confidence c with a standard deviation of
    # √(c(1-c)/n); the mean deviation of a normal distribution is √(2/π) times that.
    by_chance = sum(math.sqrt(2 / math.pi * rows * max(0.0, c * (1 - c))) for rows, c in confidences)
    frequent, most = max(scores.classes.items(), key=lambda item: item[1].support)
    return {
        "scores": scores,
        "frequent": frequent,
        "frequent_share": most.support / scores.rows,
        "judged": {
            name: (one, wilson_interval(round(one.recall * one.support), one.support))
            for name, one in scores.classes.items()
            if one.support >= _ENOUGH
        },
        "every_class_judged": all(one.support >= _ENOUGH for one in scores.classes.values() if one.support),
        "chance_ece": by_chance / scores.rows,
        "mean_confidence": sum(rows * confidence for rows, confidence in confidences) / scores.rows,
        "sure": _sure_predictions(evaluation),
        "plain_tta": next(name for name, one in evaluation.tta.items() if not one.against_fewest),
        "best_tta": max(
            (name for name, one in evaluation.tta.items() if one.against_fewest and scores.rows >= 5 * _ENOUGH),
            key=lambda name: evaluation.tta[name].official.accuracy,
            default=None,
        ),
    }


def _sure_predictions(evaluation: Evaluation) -> dict[str, float] | None:
    """Return the lowest confidence above which nine of ten predictions are right, if a tenth or more are above it."""
    bins = [one for one in reversed(evaluation.main.reliability) if one.rows]
    rows = list(accumulate(one.rows for one in bins))
    right = list(accumulate(one.rows * (one.accuracy or 0.0) for one in bins))
    sure = [number for number in range(len(bins)) if right[number] >= _SURE_ACCURACY * rows[number]]
    total = evaluation.rows
    if evaluation.main.official.accuracy >= _SURE_ACCURACY or not sure:
        return None
    last = sure[-1]
    low, high = wilson_interval(round(right[last]), rows[last])
    figures = {"above": bins[last].low, "right": right[last] / rows[last], "low": low, "high": high}
    return figures | {"share": rows[last] / total} if rows[last] >= max(_ENOUGH, _SURE_SHARE * total) else None
