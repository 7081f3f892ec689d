"""The demo from end to end, tiny: it runs every stage, and nothing else shows that they fit together."""

from pathlib import Path

import pytest

from fer_ray.demo import DemoSize, demo

TINY = DemoSize(faces=210, image_size=24, trials=2, trial_epochs=1, epochs=2, photos=6)


@pytest.mark.slow
def test_demo(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = demo(size=TINY)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(file) == str(tmp_path / "fer-demo" / "report" / "report.html")
    commands = [line.split()[1] for line in lines if line.startswith("    fer-ray ")]
    assert commands == ["prepare", "tune", "train", "evaluate", "score", "score", "export", "audit", "report"]
    assert any("grace_hopper.jpg" in line and "ok" in line for line in lines)
    page = file.read_text(encoding="utf-8")
    for kind in ("Training run", "Evaluation", "Search", "Scoring job", "Dataset"):
        assert f'<p class="kind">{kind}</p>' in page
    assert "10 inputs, 4 failed" in page
