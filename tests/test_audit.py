"""The audit of labels: what it finds and writes, that it can be resumed, and what it refuses."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ray import cloudpickle
from sklearn.metrics import roc_auc_score

from fer_ray import audit as stage
from fer_ray.audit import AuditResult, audit
from fer_ray.cli import main
from fer_ray.dataset.near_duplicates import near_groups
from fer_ray.dataset.store import PreparedDataset
from fer_ray.emotions import EMOTIONS
from fer_ray.errors import DataError, UsageError
from fer_ray.prepare import prepare
from fer_ray.training.folds import FoldTraining, make_folds

pytestmark = pytest.mark.usefixtures("ray_cluster")
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't find the folder of the tests
FLIPPED = range(0, 570, 19)
SETTINGS = ["training.epochs=15", "training.batch_size=32", "training.max_failures=0"]


@pytest.fixture(scope="module")
def flipped(tiny_dataset: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn faces, some training labels of which are wrong, and two of which are copies under two labels."""
    folder, train = tmp_path_factory.mktemp("flipped"), tiny_dataset.load("train")
    lines = [f"{train.ids[row]},{EMOTIONS[train.labels[row]]},{EMOTIONS[train.labels[row] - 3]},yes" for row in FLIPPED]
    (file := folder / "flips.csv").write_text("id,label,proposed,keep\n" + "\n".join(lines))
    prepare("synthetic:712", folder / "dataset", size=24, corrections=file)
    return folder / "dataset"


@pytest.fixture(scope="module")
def audited(flipped: Path, tmp_path_factory: pytest.TempPathFactory) -> AuditResult:
    output = tmp_path_factory.mktemp("audit") / "audit"
    return audit(flipped, output, config="lenet", folds=2, overrides=SETTINGS)


def test_changed_labels_are_ranked_first(audited: AuditResult, flipped: Path) -> None:
    data, frame = PreparedDataset(flipped), audited.table
    assert frame["id"].tolist() == data.load("train").ids + data.load("validation").ids
    assert frame["split"].tolist() == ["train"] * 570 + ["validation"] * 71
    is_flipped = np.isin(np.arange(641), FLIPPED)
    assert roc_auc_score(is_flipped, -frame["rank"]) > 0.9
    wrong = frame["kind"] == "likely_wrong"
    assert wrong[is_flipped].mean() > 0.5 > 0.3 > wrong[~is_flipped].mean()
    probabilities = frame[[f"p_{name}" for name in EMOTIONS]].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    by_rank = probabilities[np.arange(641), frame["label"]][frame["rank"].argsort()]
    assert sorted(frame["rank"]) == list(range(1, 642)) and (np.diff(by_rank) >= 0).all()
    assert (frame["proposed"] == probabilities.argmax(axis=1)).all()


def test_the_page_and_the_corrections_show_what_is_likely_wrong(audited: AuditResult, tmp_path: Path) -> None:
    folder, frame = Path(audited.path), audited.table.set_index("id")
    assert {file.name for file in folder.iterdir()} == {
        "audit.parquet", "audit.html", "corrections.csv", "provenance.json", "study.db", "study.json", ".lock"
    }  # fmt: skip
    wrong = frame[frame["kind"] == "likely_wrong"].sort_values("rank")
    lines = pd.read_csv(folder / "corrections.csv").set_index("id")
    assert lines.index.tolist() == wrong.index.tolist() and set(lines["keep"]) == {"yes"}
    assert lines["proposed"].tolist() == [EMOTIONS[label] for label in wrong["proposed"]]
    page = (folder / "audit.html").read_text()
    assert page.count("<img") >= len(wrong) and "Noise matrix" in page
    assert f"{len(wrong)} of 641 labels are likely wrong" in page
    with pytest.raises(DataError, match="the source has another label"):  # which the audited dataset corrected
        prepare("synthetic:712", tmp_path / "again", size=24, corrections=folder / "audit.parquet")


def test_copies_are_in_one_fold_and_none_trains_its_own_network(tiny_dataset: PreparedDataset) -> None:
    train = tiny_dataset.load("train")
    images = np.concatenate([train.images, train.images[:100], np.zeros_like(train.images[:9])])
    images[570:600, :3, :3] += 9  # near-duplicates
    rows = train.take(np.r_[:570, :100, :9])
    object.__setattr__(rows, "images", images)
    folds = make_folds(rows, 3, seed=1)
    assert (folds[:100] == folds[570:670]).all() and len(set(folds[670:])) == 1
    assert np.bincount(folds).tolist() == pytest.approx([226] * 3, abs=8)
    counts = [np.bincount(train.labels[folds[:570] == fold]) for fold in range(3)]
    assert np.ptp(counts, axis=0).max() <= 8
    assert near_groups(np.array([0, 2**64 - 1, 3], np.uint64)).tolist() == [0, 1, 0]
    assert near_groups(np.array([0, 2**64 - 1], np.uint64)).tolist() == [0, 1]  # no pair to compare
    few = train.take(np.flatnonzero((train.labels != 1) | (np.arange(570) < 99)))
    with pytest.raises(UsageError, match=r"--folds 40: each needs an image of every label.* disgust \d"):
        make_folds(few, 40, seed=0)


def test_a_failed_audit_continues_to_the_same_result(
    audited: AuditResult,
    flipped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Failing(FoldTraining):
        def __call__(self, config, data, report, *, resume_from) -> None:  # type: ignore[no-untyped-def]
            def failing(metrics, snapshot) -> None:  # type: ignore[no-untyped-def]
                report(metrics, snapshot)
                if config.training.seed == 1 and metrics["epoch"] == 3:
                    raise ValueError("no space left")

            super().__call__(config, data, failing, resume_from=resume_from)

    call = {"config": "lenet", "folds": 2, "overrides": SETTINGS}
    with monkeypatch.context() as patch, pytest.raises(UsageError, match=r"1 of 2 trials failed.*no space left"):
        patch.setattr(stage, "FoldTraining", Failing)
        audit(flipped, tmp_path / "audit", **call)
    with pytest.raises(UsageError, match="the output is in use"):
        audit(flipped, tmp_path / "audit", **call)
    with pytest.raises(UsageError, match=r"its spaces differ from those of earlier calls in lenet: training.epochs"):
        audit(flipped, tmp_path / "audit", **call | {"overrides": [*SETTINGS, "training.epochs=16"]}, resume=True)
    capsys.readouterr()
    result = audit(flipped, tmp_path / "audit", **call, resume=True)
    assert len(re.findall("trial . COMPLETE", capsys.readouterr().err)) == 1
    assert result.table.equals(audited.table)
    assert audit(flipped, tmp_path / "audit", **call, resume=True).table.equals(result.table)
    with pytest.raises(UsageError, match=r"in lenet: training.seed"):
        audit(flipped, tmp_path / "audit", **call | {"folds": 3}, resume=True)


def test_the_plan_is_printed_and_nothing_is_written(
    flipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["audit", "--dataset", str(flipped), "--output", str(tmp_path / "new"), "--config", "lenet"]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--folds", "3", "--dry-run"])
    assert stopped.value.code == 0 and not (tmp_path / "new").exists()
    out = capsys.readouterr().out
    assert "3 trials of lenet" in out and "images by fold: [2" in out and "time: " in out
    for wrong, message in (
        (["--folds", "1"], "--folds 1: must be"),
        (["--set", "model.pretrained=x"], "loss.teachers"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, *wrong])
        assert stopped.value.code == 2 and message in capsys.readouterr().err
