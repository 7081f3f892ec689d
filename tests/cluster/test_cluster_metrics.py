"""What Prometheus finds at Ray's port of metrics: the figures of a job's summary, of a search and of training."""

import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families
from scripted_search import Search
from test_tune import die, diverge

from fer_ray.console.progress import ProgressBar
from fer_ray.dataset.store import PreparedDataset
from fer_ray.prepare import prepare
from fer_ray.score import score
from fer_ray.sources.synthetic import synthetic_faces
from fer_ray.training.on_ray.shared_progress import ProgressSender, shared_progress

pytestmark = pytest.mark.usefixtures("ray_cluster")
PATIENCE_S = 60


def scraped(name: str, *labels: str) -> Counter[Any]:
    """Return a metric's values by the given labels, summed over those that Ray adds."""
    (port,) = {node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]}
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
        families = text_string_to_metric_families(page.read().decode())
    values = Counter[Any]()
    for sample in (sample for family in families for sample in family.samples if sample.name == name):
        key = tuple(sample.labels[label] for label in labels)
        values[key[0] if len(key) == 1 else key] += sample.value
    return values


def wait_for(look: Callable[[], object], expected: object) -> None:
    """Wait until what is sent every second has arrived; then it stays so."""
    end = time.monotonic() + PATIENCE_S
    while (found := look()) != expected and time.monotonic() < end:
        time.sleep(0.2)
    assert found == expected


def test_scoring_counts_as_its_summary_does(tmp_path: Path) -> None:
    photos, labels = tmp_path / "photos", ("stage", "status")
    photos.mkdir()
    for number, face in enumerate(synthetic_faces(90, seed=0)[0]):
        (photos / f"{number:03}.png").write_bytes(cv2.imencode(".png", face)[1].tobytes())
    (photos / "empty.jpg").touch()
    (photos / "note.jpg").write_text("no image")
    (photos / "page.jpg").write_text("no image either")
    before = scraped("ray_fer_ray_images_total", *labels)
    result = score(None, [photos], tmp_path / "labels", tta="none", max_error_rate=1, ray=True)
    by_status = result.summary["by_status"]
    assert by_status == {"ok": 90, "not_an_image": 2, "empty": 1}
    expected = {("score", status): count for status, count in by_status.items()}
    wait_for(lambda: scraped("ray_fer_ray_images_total", *labels) - before, expected)


def test_preparing_counts_what_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "source" / "train" / "happy").mkdir(parents=True)
    for number, face in enumerate(synthetic_faces(20, seed=0)[0]):
        file = tmp_path / "source" / "train" / "happy" / f"{number}.png"
        file.write_bytes(cv2.imencode(".png", face)[1].tobytes() if number else b"no image")
    before = scraped("ray_fer_ray_images_total", "stage", "status")
    info = prepare(tmp_path / "source", tmp_path / "data", validation_fraction=0).info
    assert info.rejected == 1
    expected = {("prepare", "ok"): info.splits["train"].rows, ("prepare", "rejected"): info.rejected}
    wait_for(lambda: scraped("ray_fer_ray_images_total", "stage", "status") - before, expected)


def test_a_search_counts_its_trials_and_their_failures(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    trials, failures = "ray_fer_ray_trials_total", "ray_fer_ray_failures_total"
    before = scraped(trials, "state"), scraped(failures, "stage", "kind")
    images = scraped("ray_fer_ray_images_total", "stage")
    scripted = Search(tiny_dataset, tmp_path)
    scripted([0.2, 0.5, 0.4], [0.1, 0.6, 0.6], [0.3, diverge], [0.3, 0.4, die], [0.6], trials=4)
    assert scripted.states() == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
    expected = {"COMPLETE": 2, "PRUNED": 1, "FAIL": 1}
    wait_for(lambda: scraped(trials, "state") - before[0], expected)
    wait_for(lambda: scraped(failures, "stage", "kind") - before[1], {("tune", "error"): 1, ("tune", "lost"): 1})
    reported = [len(trial.intermediate_values) for trial in scripted.study().trials]
    assert reported == [3, 1, 1, 3]
    counted = {570 * 7, 570 * 8}  # the epoch before the death may not have been heard
    wait_for(lambda: (scraped("ray_fer_ray_images_total", "stage") - images)["tune"] in counted, True)
    assert scraped("ray_fer_ray_best_value", "objective") == {"accuracy": 0.6}
    assert sum(scraped("ray_fer_ray_trials_running").values()) == 0


def test_training_on_workers_shows_its_images_and_its_last_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    before, line = scraped("ray_fer_ray_images_total", "stage"), {"epoch": 2.0, "validation_loss": 1.5}
    with ProgressBar("training", 1140) as bar, shared_progress(bar, str) as actor:
        sender = ProgressSender(actor, epochs=1, rows=570, workers=2)
        sender.add(285)
        sender.finish_epoch(line | {"validation_accuracy": 0.5})
        sender.flush()
    wait_for(lambda: (scraped("ray_fer_ray_images_total", "stage") - before)["train"], 2 * 570)
    for name, value in line.items():
        wait_for(lambda: list(scraped(f"ray_fer_ray_{name}").values()), [pytest.approx(value)])  # noqa: B023
    assert "'epoch': 2.0" in capsys.readouterr().err
