"""What a run writes down as it trains: lines of metrics, scalars, its speed."""

import json
import time

import pytest
from training_runs import config, denoising, info, load, metrics

from diffusion import TrainConfig
from diffusion.checkpoint import CheckpointInfo
from diffusion.training import trainer
from diffusion.training.objectives import TrainingError
from diffusion.training.run_folder import METRICS_NAME, RUN_NAME

pytestmark = pytest.mark.usefixtures("one_sample")


def test_no_line_of_metrics_says_nan(pictures, tmp_path, monkeypatch):
    """On a slow machine, a line falls due before the tenth step."""
    monkeypatch.setattr(trainer, "LOG_SECONDS", -1)
    run = denoising(config(images=400), info(), load(pictures), tmp_path)
    next(run.network.parameters()).data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="became infinite or undefined"):
        run.train()
    assert not (tmp_path / METRICS_NAME).exists()


def test_a_run_that_never_saved_leaves_no_lines_to_the_next(pictures, tmp_path):
    (tmp_path / METRICS_NAME).write_text(json.dumps({"images": 8, "images_seen": 8}) + '\n{"ima')
    denoising(config(images=12, save_minutes=0.0), info(), load(pictures), tmp_path).train()
    assert [line["images"] for line in metrics(tmp_path)] == [4, 8, 12]


def test_every_line_of_metrics_is_json_and_says_the_same(pictures, tmp_path):
    run = denoising(config(images=12, save_minutes=0.0), info(), load(pictures), tmp_path)
    run.train()
    lines = metrics(tmp_path)
    assert [line["images_seen"] for line in lines] == [4, 8, 12]
    keys = {"images_seen", "minutes", "loss", "grad_norm", "images_per_second", "heldout_loss"}
    for line in lines:
        assert set(line) == keys | {"images", "lr"}
        assert all(isinstance(value, (int, float)) for value in line.values())
        assert 0.1 < line["loss"] < 10
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "000000004.png", "000000008.png", "000000012.png",
    ]  # fmt: skip
    told = json.loads((tmp_path / RUN_NAME).read_text())
    assert TrainConfig.from_dict(told["train"]) == run.config
    assert CheckpointInfo.from_dict(told["info"]) == run.objective.info


def test_a_session_writes_one_file_of_scalars(pictures, tmp_path):
    scalars = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    denoising(config(images=12, save_minutes=0.0), info(), load(pictures), tmp_path).train()
    (file,) = (tmp_path / "tensorboard").iterdir()
    read = scalars.EventAccumulator(str(file)).Reload()
    for key in ("loss", "heldout_loss"):
        told = [(event.step, event.value) for event in read.Scalars(key)]
        assert told == [(m["images_seen"], pytest.approx(m[key])) for m in metrics(tmp_path)]


@pytest.mark.slow
def test_the_speed_leaves_out_the_time_of_saving(pictures, tmp_path, monkeypatch):
    run = denoising(config(images=40, save_images=4), info(), load(pictures), tmp_path)
    save = run._save_state
    monkeypatch.setattr(run, "_save_state", lambda: (time.sleep(0.5), save()))
    run.train()
    assert min(line["images_per_second"] for line in metrics(tmp_path)) > 8  # 4 in 0.5 s else
