"""A training's folder: read through a schema, whoever wrote or damaged it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_rig import SPEC, changed, start_long, wait_for, wait_for_more

from diffusion.cli.main import build_parser, main
from diffusion.config import FinetuneConfig
from diffusion.training import finetune
from diffusion.training.run_folder import MetricsLine, RunProgress, RunState
from studio.training.training_folder import (
    Metrics,
    Record,
    TrainingSpec,
    TrainingState,
    parse_metrics,
    parse_progress,
    parse_record,
)

OF_BEFORE = """\
{
  "spec": {
    "name": "Mia",
    "label": "Mia the cat",
    "base": "tiny",
    "length": "thorough",
    "lr": 0.0001,
    "batch_size": 8,
    "layers": "deep",
    "keep": 0.25
  },
  "created": 1.5,
  "state": "stopped",
  "message": "Stopped; the model so far is kept.",
  "queued": 1.5,
  "launched": 2.5,
  "pid": 77,
  "identity": "0c6d1f2e 4711",
  "wanted": "",
  "asked": 0.0,
  "model": 1790000000123456789
}
"""


@pytest.mark.parametrize(
    "changes",
    [{"name": ""}, {"name": "x" * 200}, {"name": None}, {"name": "🐱"}, {"label": ""},
     {"label": "x" * 41}, {"label": "a\nb"}, {"label": " Mia"}, {"images": None},
     {"minutes": 1.0}, {"layers": "--out"}, {"lr": -1e-4}, {"lr": 1.5}, {"lr": float("nan")},
     {"batch_size": 0}, {"batch_size": 257}, {"keep": -0.1}, {"keep": 0.8},
     {"keep": float("inf")}],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_a_sentence(changes):
    with pytest.raises(ValueError, match=r"\.$"):
        changed(SPEC, **changes)


@pytest.mark.parametrize(
    "changes",
    [{"label": 7}, {"label": "a\nb"}, {"layers": ["all"]}, {"lr": "fast"}, {"lr": 10**30},
     {"batch_size": 1.5}, {"batch_size": "many"}, {"batch_size": 10**9}, {"keep": None},
     {"keep": 0.8}, {"images": "all"}, {"images": None}],
)  # fmt: skip
def test_a_record_that_asks_for_the_impossible_is_damaged(changes):
    values = Record(SPEC, created=1.0).to_dict()
    assert parse_record(json.dumps(values).encode()) == Record(SPEC, created=1.0)
    values["spec"]["config"] |= changes
    assert parse_record(json.dumps(values).encode()) is None


def test_a_record_of_an_older_version_opens(rig):
    record = parse_record(OF_BEFORE.encode())
    config = FinetuneConfig(
        "Mia the cat", images=20_000, lr=1e-4, batch_size=8, layers="deep", keep=0.25
    )
    assert record == Record(
        TrainingSpec("Mia", config, base="tiny"), created=1.5, state=TrainingState.STOPPED,
        message="Stopped; the model so far is kept.", queued=1.5, launched=2.5, pid=77,
        model="1790000000123456789",
    )  # fmt: skip
    plain = OF_BEFORE.replace("0.0001", "null").replace(": 8,", ": null,")
    config = parse_record(plain.encode()).spec.config
    assert (config.lr, config.batch_size) == (FinetuneConfig.lr, FinetuneConfig.batch_size)


def test_a_folder_of_an_older_version_is_shown_and_goes_on(rig):
    trainings = rig.server()
    id = start_long(rig, trainings)
    trainings.stop_and_keep(id)
    wait_for(trainings, id, "stopped")
    (rig.folder(id) / "job.json").write_text(OF_BEFORE)
    view = trainings.view(id)
    assert (view.state, view.spec.length, view.result) == ("stopped", "thorough", "mia")
    trainings.resume(id)
    wait_for_more(trainings, id)
    trainings.pause(id)
    wait_for(trainings, id, "paused")
    assert rig.record(id)["spec"]["config"]["images"] == 20_000


@pytest.mark.parametrize(
    "config",
    [FinetuneConfig("Mia", images=3_000),
     FinetuneConfig("--out=/tmp/x", images=8_000, lr=0.00012345678, layers="label", keep=0.0),
     FinetuneConfig("Mia the cat", minutes=2.5, batch_size=8, layers="deep", keep=0.55)],
)  # fmt: skip
def test_the_command_line_reads_the_options_back(config, tiny_folder, tmp_path, monkeypatch):
    asked = []

    def stand_in(*args, keep_copies, stop):
        asked.append((*args, keep_copies))
        return True

    monkeypatch.setattr(finetune, "finetune", stand_in)
    base = str(tiny_folder / "tiny.safetensors")
    options = TrainingSpec("Mia", config).options()
    arguments = ["finetune", "--base", base, "--data", "pictures", "--out", str(tmp_path)]
    assert main([*arguments, *options]) == 0
    assert main([*arguments, "--keep-both", *options]) == 0  # as the page starts it
    wanted = Path(base), "pictures", tmp_path, config
    assert asked == [(*wanted, False), (*wanted, True)]
    assert build_parser().parse_args([*arguments, *options]).out == str(tmp_path)


def test_a_length_has_a_name_if_it_is_one_of_the_three():
    for config, length in (
        (FinetuneConfig("Mia", images=8_000), "balanced"),
        (FinetuneConfig("Mia", images=1_234), "1,234 images"),
        (FinetuneConfig("Mia", minutes=2.5), "2.5 minutes"),
    ):
        assert TrainingSpec("Mia", config).length == length


@pytest.mark.parametrize(
    "damage",
    [{"fraction": "half"}, {"images": "many"}, {"images": 10**400}, {"seconds_left": {}},
     {"seconds_left": "1e999"}, {"state": "dreaming"}, {"message": 7}, {"updated": None}],
)  # fmt: skip
def test_progress_with_a_word_for_a_number_is_damaged(damage):
    text = json.dumps({**RunProgress(images=8).__dict__, **damage}).replace('"1e999"', "1e999")
    assert parse_progress(text.encode()) is None


def test_progress_that_older_versions_wrote_is_read():
    told = parse_progress(b'{"state": "training", "images": 8, "loss": NaN, "updated": 5}')
    assert told == RunProgress(RunState.TRAINING, images=8, loss=None, updated=5.0)


def test_metrics_are_read_but_for_their_damaged_lines():
    whole = b'{"images": 8, "loss": 0.5, "lr": 1}\n{"images": 16, "heldout_loss": 0.25}\n'
    lines = (MetricsLine(8, 0.5), MetricsLine(16, None, 0.25))
    assert parse_metrics(whole) == Metrics(lines)
    assert parse_metrics(b'0.1, "lr": 1}\n' + whole + b'{"images": 2') == Metrics(lines)
    for damage in (b'{"images": "many"}', b'{"images": 24, "loss": "low"}', b'{"loss": 1}', b"7"):
        assert parse_metrics(whole + damage) == Metrics(lines, damaged=True)
    assert parse_metrics(whole.replace(b"\n", b"\n{\n", 1)) == Metrics(lines, damaged=True)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"spec": {}}', b"[" * 100_000, None, "state", "pid"]
)
def test_a_damaged_record_is_shown_as_failed_and_breaks_nothing(rig, damage):
    trainings = rig.server(start=False)
    id = trainings.create(SPEC, rig.pictures)
    record = trainings.records.folder / id / "job.json"
    if damage is None:
        record.unlink()
    elif isinstance(damage, str):
        record.write_text(json.dumps({**rig.record(id), damage: "nonsense"}))
    else:
        record.write_bytes(damage)
    other = trainings.create(SPEC, rig.pictures)
    (trainings.records.folder / "notes.txt").write_text("a stray file")
    (trainings.records.folder / "lost+found").mkdir()
    trainings.start()
    wait_for(trainings, other, "done")
    view = trainings.view(id)
    assert (view.state, view.can_resume, view.can_pause, view.can_stop) == (
        "failed", False, False, False,
    )  # fmt: skip
    assert "damaged" in view.message
    with pytest.raises(ValueError, match="damaged"):
        trainings.resume(id)
    trainings.cancel(id)
    assert [view.id for view in trainings.views()] == [other]


def test_half_written_and_strange_files_of_the_process_do_no_harm(rig):
    trainings = rig.server(start=False)
    id = trainings.create(SPEC, rig.pictures)
    folder = trainings.records.folder / id
    lines = ['{"images": 8, "loss": NaN}', "7", '"x"', "", '{"images": 8}', "{",
             '{"images": 16, "loss": 1.5}', '{"images": 24, "lo']  # fmt: skip
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    (folder / "progress.json").write_text("[1")
    bar = b"Caf\xc3\xa9\n  1%|#\r  2%|##\r\n\x1b[31mred\n" + b"x" * 5000
    (folder / "log.txt").write_bytes(b"old\n" * 9000 + bar)
    for name in ("samples/000000008.png", "samples/.000000009-ab.png", "samples/x.png",
                 "steps/.000000008-ab.safetensors", "steps/000000016.safetensors"):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    view = trainings.view(id)
    assert view.metrics == (MetricsLine(8, None), MetricsLine(16, 1.5))
    assert view.progress == RunProgress()
    assert view.log_tail[-4:] == ["Café", "2%|##", "[31mred", "x" * 300]
    assert len(view.log_tail) == 12
    assert [path.name for path in view.samples] == ["000000008.png"]
    assert view.steps == [16]


def test_a_view_reads_only_what_has_changed(rig, monkeypatch):
    trainings = rig.server(start=False)
    id = trainings.create(SPEC, rig.pictures)
    folder = trainings.records.folder / id
    (folder / "metrics.jsonl").write_text('{"images": 8}\n')
    opened: list[str] = []
    open_path = Path.open
    trainings.views()
    monkeypatch.setattr(
        Path, "open", lambda path, *a, **k: opened.append(path.name) or open_path(path, *a, **k)
    )
    trainings.views()
    assert opened == []
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"images": 16}\n')
    opened.clear()
    assert len(trainings.view(id).metrics) == 2
    assert opened == ["metrics.jsonl"]


def test_only_the_end_of_long_metrics_is_read(rig):
    trainings = rig.server(start=False)
    id = trainings.create(SPEC, rig.pictures)
    lines = "".join(f'{{"images": {i}, "more": "{"x" * 80}"}}\n' for i in range(20_000))
    (trainings.records.folder / id / "metrics.jsonl").write_text(lines)
    metrics = trainings.view(id).metrics
    assert 5_000 < len(metrics) < 11_000
    assert metrics[-1].images == 19_999
