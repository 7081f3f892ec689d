"""Describe an evaluation as plain text for the terminal."""

from pathlib import Path

from fer_ray.console.text import amount
from fer_ray.inference.scores import Evaluation, Scores

_PAIRS = 10  # the pairs of more than five members would fill a page


def describe(evaluation: Evaluation) -> str:
    """Return the metrics as tables of plain text."""
    parts = [_title(evaluation), _by_tta(evaluation), _main(evaluation)]
    if len(evaluation.members) > 1:
        parts += [_members(evaluation), _pairs(evaluation)]
    return "\n\n".join([*parts, "\n".join(evaluation.notes)]).rstrip()


def accuracy_text(scores: Scores) -> str:
    """Return the accuracy with its 95% interval, such as ``71.23% (69.7–72.7%)``."""
    return f"{scores.accuracy:.2%} ({100 * scores.accuracy_low:.1f}–{scores.accuracy_high:.1%})"


def _title(evaluation: Evaluation) -> str:
    names = list(dict.fromkeys(member.architecture for member in evaluation.members))
    what = names[0] if len(evaluation.members) == 1 else f"{len(evaluation.members)} networks ({', '.join(names)})"
    leaked = f", {evaluation.leaked_rows:,} of them also in train" if evaluation.leaked_rows else ""
    return f"{what} on {evaluation.split}: {amount(evaluation.rows, 'image')}{leaked}"


def _by_tta(evaluation: Evaluation) -> str:
    leaky = evaluation.leaked_rows > 0
    without = f"  {'without copies':22}" if leaky else ""
    lines = [
        f"{'TTA':10}{'views':>5}{'images/s':>10}  {'accuracy (95%)':22}{without}{'macro-F1':>10}{'NLL':>7}{'ECE':>7}"
    ]
    for name, measured in evaluation.tta.items():
        scores, clean = measured.official, measured.without_leaked
        without = f"  {accuracy_text(clean) if clean else 'none left':22}" if leaky else ""
        lines.append(
            f"{name:10}{measured.views:>5.3g}{measured.images_per_s:>10,.0f}  {accuracy_text(scores):22}{without}"
            f"{scores.macro_f1:>10.3f}{scores.nll:>7.3f}{scores.ece:>7.3f}"
        )
    return "\n".join(lines)


def _main(evaluation: Evaluation) -> str:
    measured = evaluation.main
    scores = measured.official
    lines = [f"{'TTA ' + evaluation.main_tta:20}{'precision':>10}{'recall':>10}{'F1':>10}{'images':>10}"]
    for name, one in scores.classes.items():
        lines.append(f"{name:20}{one.precision:>10.3f}{one.recall:>10.3f}{one.f1:>10.3f}{one.support:>10,}")
    lines += [
        "",
        f"balanced accuracy {scores.balanced_accuracy:.2%}, weighted F1 {scores.weighted_f1:.3f}, kappa"
        f" {scores.kappa:.3f}, top-2 accuracy {scores.top2_accuracy:.2%}",
    ]
    if any(member.temperature != 1 for member in evaluation.members):
        lines.append(
            f"calibration: ECE {measured.ece_uncalibrated:.3f} before and {scores.ece:.3f} after, NLL"
            f" {measured.nll_uncalibrated:.3f} before and {scores.nll:.3f} after"
        )
    return "\n".join(lines)


def _members(evaluation: Evaluation) -> str:
    names = [_short(member.checkpoint) for member in evaluation.members]
    title = f"member alone, TTA {evaluation.main_tta}"
    wide = max(map(len, [title, *names]))
    lines = [
        f"   {title:{wide}}  {'network':10}{'parameters':>11}{'epoch':>7}{'temperature':>13}"
        f"{'accuracy':>10}{'NLL':>7}{'adds':>8}"
    ]
    for number, (name, one) in enumerate(zip(names, evaluation.members, strict=True), start=1):
        lines.append(
            f"{number:>2} {name:{wide}}  {one.architecture:10}{one.parameters / 1e6:>9.2f} M{one.epoch:>7}"
            f"{one.temperature:>13.3f}{one.accuracy:>10.2%}{one.nll:>7.3f}{one.share or 0:>+8.2%}"
        )
    return "\n".join(lines)


def _short(path: str) -> str:
    """Return a path relative to the working directory if it is inside; else unchanged."""
    below = Path(path).is_relative_to(Path.cwd())
    return str(Path(path).relative_to(Path.cwd())) if below else path


def _pairs(evaluation: Evaluation) -> str:
    lines = [
        f"{'TTA ' + evaluation.main_tta:16}{'disagree':>9}{'only first right':>18}{'only second right':>19}"
        f"{'McNemar p':>11}"
    ]
    for one in evaluation.pairs[:_PAIRS]:
        pair = f"{one.first + 1}, {one.second + 1}"
        lines.append(
            f"{pair:16}{one.disagreement:>9.1%}{one.only_first_right:>18,}{one.only_second_right:>19,}"
            f"{one.mcnemar_p:>11.2g}"
        )
    if len(evaluation.pairs) > _PAIRS:
        lines.append(f"… and {len(evaluation.pairs) - _PAIRS} more in metrics.json")
    return "\n".join(lines)
