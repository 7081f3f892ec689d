"""Ray Tune as searches run it: what its own way would do to a search."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import optuna
import pytest
from ray import tune as ray_tune
from ray._private.utils import get_system_memory, get_used_memory
from scripted_search import SPACE

from fer_ray.cluster import connect
from fer_ray.dataset.store import PreparedDataset
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


GREEDY = """
import sys
import numpy as np
from ray import cloudpickle
from fer_ray.training.loop import fit
from fer_ray.config.tune_options import TuneOptions
from fer_ray.search.request import check_request
from fer_ray.tune import search

cloudpickle.register_pickle_by_value(sys.modules[__name__])

def greedy(config, data, report, *, resume_from=None):
    if config.model.dropout > 0.5:
        held = [np.ones(25_000_000) for _ in range(40)]  # 200 MB each
    fit(config, data, report, resume_from=resume_from)

dataset, space, output = sys.argv[1:4]
search(check_request(TuneOptions(dataset, [space], output, 4, max_concurrent=1, sampler="random")), greedy)
"""


@pytest.mark.heavy
def test_a_greedy_trial_fails_and_the_search_goes_on(tiny_dataset: PreparedDataset, tmp_path: Path) -> None:
    """With Ray's memory monitor at work: trials that take 4 GB more than there is room for are killed."""
    (tmp_path / "s.yaml").write_text(SPACE.replace("dropout: 0.5", "dropout: 0.3").replace("epochs: 3", "epochs: 1"))
    (tmp_path / "greedy.py").write_text(GREEDY)
    threshold = (get_used_memory() + 5e9) / get_system_memory()
    environment = os.environ | {"RAY_memory_usage_threshold": f"{threshold:.3f}"}
    command = [sys.executable, "greedy.py", str(tiny_dataset.path), "s.yaml", "run"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'run' / 'study.db'}")
    trials = [trial for trial in study.trials if "interrupted" not in trial.user_attrs]
    greedy = [trial.params["model.dropout"] > 0.5 for trial in trials]
    assert 0 < sum(greedy) < len(trials) == 4
    assert [trial.state.name == "FAIL" for trial in trials] == greedy
    errors = [trial.user_attrs["error"] for trial in trials if trial.state.name == "FAIL"]
    assert all(error.startswith("out of memory: ") and "Lower training.batch_size" in error for error in errors)
