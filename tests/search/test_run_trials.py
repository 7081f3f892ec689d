"""Ray Tune as searches run it: what its own way would do to a search."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from ray import tune as ray_tune

from fer_ray.cluster import connect
from fer_ray.errors import FerRayError
from fer_ray.search.on_ray.run_trials import run_to_its_end
from fer_ray.search.on_ray.trial_listener import TrialListener


def test_a_search_ends_well_though_the_uploaded_folder_of_its_job_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123"
    uploaded.mkdir(parents=True)
    monkeypatch.chdir(uploaded)
    ended = list[str]()

    class Fitting:
        def fit(self) -> None:
            uploaded.rmdir()
            ended.append(os.path.relpath("study/trial", start="study"))  # as Tune does at the end

    run_to_its_end(cast(ray_tune.Tuner, Fitting()))
    assert ended == ["trial"]


def test_a_ray_that_died_ends_a_search_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def died() -> None:
        raise FerRayError("Ray's raylet on this machine died.")

    def fit() -> None:
        try:
            TrialListener.stop_all(SimpleNamespace())  # type: ignore[arg-type]
        except Exception:  # as Tune's loop does, to wait for its actors
            pytest.fail("Tune would wait forever")

    monkeypatch.setattr(connect, "require_running", died)
    with pytest.raises(FerRayError, match=r"raylet on this machine died\. Finished epochs are kept: .* --resume"):
        run_to_its_end(SimpleNamespace(fit=fit))  # type: ignore[arg-type]
