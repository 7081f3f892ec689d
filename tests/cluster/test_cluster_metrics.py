"""What Prometheus finds at Ray's port of metrics: the figures of a job's summary and of training."""

from pathlib import Path

import pytest
from inputs import picture, write
from prometheus_figures import scraped, wait_for

from fer_ray.console.progress import ProgressBar
from fer_ray.prepare import prepare
from fer_ray.score import score
from fer_ray.training.on_ray.shared_progress import ProgressSender, shared_progress

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_scoring_counts_as_its_summary_does(tmp_path: Path) -> None:
    faces, labels = {f"{number:03}.png": picture(number) for number in range(90)}, ("stage", "status")
    photos = write(tmp_path / "photos", faces | {"empty.jpg": b"", "note.jpg": b"no image"})
    before = scraped("ray_fer_ray_images_total", *labels)
    result = score(None, [photos], tmp_path / "labels", tta="none", max_error_rate=1, ray=True)
    by_status = result.summary["by_status"]
    assert by_status == {"ok": 90, "not_an_image": 1, "empty": 1}
    expected = {("score", status): count for status, count in by_status.items()}
    wait_for(lambda: scraped("ray_fer_ray_images_total", *labels) - before, expected)


def test_preparing_counts_what_is_rejected(tmp_path: Path) -> None:
    faces = {f"train/happy/{number}.png": picture(number) if number else b"no image" for number in range(20)}
    source = write(tmp_path / "source", faces)
    before = scraped("ray_fer_ray_images_total", "stage", "status")
    info = prepare(source, tmp_path / "data", validation_fraction=0).info
    assert info.rejected == 1
    expected = {("prepare", "ok"): info.splits["train"].rows, ("prepare", "rejected"): info.rejected}
    wait_for(lambda: scraped("ray_fer_ray_images_total", "stage", "status") - before, expected)


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
