"""The mean of checkpoints: exact, of one network only, and it tells of itself."""

from dataclasses import replace

import pytest
import torch
from helpers import latent_denoiser
from studio_fixtures import TINY, save_tiny

from diffusion import Denoiser
from diffusion.checkpoint import read_checkpoint
from diffusion.cli.main import main
from diffusion.training.average import average


def test_the_command_writes_the_mean_weights(tmp_path):
    files = [str(save_tiny(tmp_path / f"{seed}.safetensors", seed=seed)) for seed in range(3)]
    out = tmp_path / "mean.safetensors"
    assert main(["average", "--checkpoints", *files, "--out", str(out)]) == 0
    states = [read_checkpoint(file)[0] for file in files]
    found, info = read_checkpoint(out)
    for name, tensor in found.items():
        exact = sum(state[name].double() for state in states) / 3
        assert tensor.dtype == states[0][name].dtype
        assert (tensor - exact).abs().max() <= 1e-3 * exact.abs().max()  # half precision
    last = read_checkpoint(files[-1])[1]
    assert info == replace(last, history=(*last.history, "average of 3 checkpoints"))
    Denoiser.load(out)


def test_some_can_count_more(tmp_path):
    files = [str(save_tiny(tmp_path / f"{seed}.safetensors", seed=seed)) for seed in range(2)]
    out = tmp_path / "mean.safetensors"
    command = ["average", "--checkpoints", *files, "--out", str(out), "--weights"]
    assert main([*command, "3", "7"]) == 0
    (one, _), (other, _), (found, info) = map(read_checkpoint, [*files, out])
    for name, tensor in found.items():
        exact = 0.3 * one[name].double() + 0.7 * other[name].double()
        assert (tensor - exact).abs().max() <= 1e-3 * exact.abs().max()
    assert info.history[-1] == "average of 2 checkpoints (0.3 to 0.7)"
    for wrong in (["1"], ["1", "0"], ["1", "nan"]):
        assert main([*command, *wrong]) == 1


def test_students_of_other_steps_have_no_average(tmp_path):
    state, info = read_checkpoint(save_tiny(tmp_path / "one.safetensors"))
    student = replace(info, teacher="a" * 12, sampling=replace(info.sampling, num_steps=2))
    other = replace(student, sampling=replace(info.sampling, num_steps=4))
    for one, two in ((info, student), (student, other)):
        with pytest.raises(ValueError, match="students of the same steps"):
            average([(state, one), (state, two)])


def test_models_of_other_latents_have_no_average(tmp_path):
    latent_denoiser().save(tmp_path / "a.safetensors")
    state, info = read_checkpoint(tmp_path / "a.safetensors")
    for name in ("codec.encoder.", "codec.decoder."):
        changed = {k: v + 1 if k.startswith(name) else v for k, v in state.items()}
        both = [(state, info), (changed, info)]
        if name == "codec.encoder.":
            with pytest.raises(ValueError, match="latents of different encoders"):
                average(both)
        else:  # the same latents, decoded by others
            assert len(average(both)[0]) == len(state)


def test_weights_that_do_not_fit_each_other_are_a_sentence(tmp_path):
    state, info = read_checkpoint(save_tiny(tmp_path / "a.safetensors"))
    name = next(iter(state))
    for other in ({k: v for k, v in state.items() if k != name}, {**state, name: state[name][:1]}):
        with pytest.raises(ValueError, match="different names or shapes"):
            average([(state, info), (other, info)])


def test_the_average_of_equals_changes_nothing(tmp_path):
    one = read_checkpoint(save_tiny(tmp_path / "one.safetensors"))
    state, _ = average([one, one])
    assert all(torch.equal(state[name], tensor) for name, tensor in one[0].items())


@pytest.mark.parametrize("other", [{"labels": ()}, {"config": replace(TINY, channels=8)}])
def test_networks_that_differ_have_no_average(tmp_path, other):
    one = read_checkpoint(save_tiny(tmp_path / "one.safetensors"))
    two = read_checkpoint(save_tiny(tmp_path / "two.safetensors", **other))
    with pytest.raises(ValueError, match="Only checkpoints with the same network"):
        average([one, two])


def test_one_checkpoint_is_no_average(tmp_path, capsys):
    file = str(save_tiny(tmp_path / "one.safetensors"))
    arguments = ["average", "--checkpoints", file, "--out", str(tmp_path / "mean.safetensors")]
    assert main(arguments) == 1
    assert "at least two" in capsys.readouterr().err
    assert not (tmp_path / "mean.safetensors").exists()
