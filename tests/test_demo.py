"""The demo from end to end, tiny. Slow, as it runs every stage; nothing else shows that they fit together."""

from pathlib import Path

import pytest

from fer_ray.demo import DemoSize, demo
from fer_ray.errors import UsageError
from fer_ray.report import report

TINY = DemoSize(faces=210, image_size=24, trials=2, trial_epochs=1, epochs=2, photos=6)


@pytest.mark.slow
def test_demo(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = demo(size=TINY)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(tmp_path / "fer-demo" / "report" / "report.html")
    assert Path(lines[-1]) == result.page
    commands = [line.split() for line in lines if line.startswith("    fer-ray ")]
    assert [words[1] for words in commands] == ["prepare", "tune", "train", "evaluate", "score", "score", "report"]
    assert any("grace_hopper.jpg  " in line and "face 0" in line for line in lines)
    page = result.page.read_text(encoding="utf-8")
    for kind in ("Training run", "Evaluation", "Search", "Scoring job", "Dataset"):
        assert f'<p class="kind">{kind}</p>' in page
    assert "10 inputs, 4 failed" in page
    assert 0 < result.accuracy <= 1
    # The commands shown are real ones: the last, run again elsewhere, gives the same page.
    folders = commands[-1][2 : commands[-1].index("--output")]
    assert report(folders, tmp_path / "again", title="Demo").page.read_text(encoding="utf-8") == page
    with pytest.raises(UsageError, match="in use"):
        demo(size=TINY)
