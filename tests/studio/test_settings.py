"""The options of ``python app.py``, and how it starts."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from studio.settings import OPTIONS, Settings, parse_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch):
    for name in ("SYSTEM", "CAT_SHARE", *(name for name, _ in OPTIONS.values())):
        monkeypatch.delenv(name, raising=False)


def test_defaults():
    assert parse_settings([]) == Settings()
    assert Settings().host == "127.0.0.1"  # strangers are let in only when asked


def test_options():
    line = "--host 0.0.0.0 --port 0 --share --checkpoint lite --data-dir /srv/cats --max-queue=5"
    assert parse_settings(line.split()) == Settings(
        "0.0.0.0", 0, True, "lite", Path("/srv/cats"), 5
    )


def test_the_log_is_an_option_and_an_environment_variable(monkeypatch):
    assert parse_settings(["--log", "-"]).log == "-"
    monkeypatch.setenv("CAT_LOG", "/var/log/cats.jsonl")
    assert parse_settings([]).log == "/var/log/cats.jsonl"


@pytest.mark.parametrize(("said", "host"), [("::1", "::1"), ("[::1]", "::1"), ("::", "::")])
def test_addresses_of_both_kinds_are_taken(said, host):
    assert parse_settings(["--host", said]).host == host


@pytest.mark.parametrize(
    ("said", "path"), [("/cats", "/cats"), ("/a/b/", "/a/b"), ("/", ""), ("", "")]
)
def test_the_path_that_a_proxy_shows_the_page_at(said, path):
    assert parse_settings(["--root-path", said]).root_path == path


def test_each_option_is_an_environment_variable_too(monkeypatch):
    for name, value in (
        ("CAT_HOST", "::1"), ("CAT_PORT", "81"), ("CAT_CHECKPOINT", "x"), ("CAT_DATA_DIR", "/d"),
        ("CAT_MAX_QUEUE", "9"), ("CAT_SHARE", "1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    assert parse_settings([]) == Settings("::1", 81, True, "x", Path("/d"), 9)
    assert parse_settings(["--port", "82"]).port == 82  # the command line wins


def test_an_empty_variable_is_none(monkeypatch):
    for name, _ in OPTIONS.values():
        monkeypatch.setenv(name, "")
    assert parse_settings([]) == Settings()


@pytest.mark.parametrize("value", ["", "0", "false", "False", "no", "off", "never"])
def test_share_can_be_said_no_to(monkeypatch, value):
    monkeypatch.setenv("CAT_SHARE", value)
    assert not parse_settings([]).share


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--port cat", "invalid int value"),
        ("--port 65536", "65536 is not a valid port"),
        ("--port -1", "-1 is not a valid port"),
        ("--max-queue 0", "at least 1"),
        ("--max-queue many", "invalid int value"),
        ("--root-path cats", "a path such as /cats"),
        ("--root-path //evil.example?x", "a path such as /cats"),
        ("--colour red", "unrecognized arguments"),
    ],
)
def test_a_mistake_is_a_sentence(line, sentence, capsys):
    with pytest.raises(SystemExit) as caught:
        parse_settings(line.split())
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_mistake_in_the_environment_is_one_too(monkeypatch, capsys):
    monkeypatch.setenv("CAT_PORT", "cat")
    with pytest.raises(SystemExit):
        parse_settings([])
    assert "argument --port: invalid int value: 'cat'" in capsys.readouterr().err


def test_help_reads_well_and_comes_at_once():
    help = subprocess.run(
        [sys.executable, "-X", "importtime", "app.py", "--help"],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"}, check=True,
    )  # fmt: skip
    for option, (variable, _) in OPTIONS.items():
        assert f"--{option} " in help.stdout
        assert variable in help.stdout
    assert "--share" in help.stdout
    assert "CAT_SHARE=1" in help.stdout
    assert "(default 7860)" in help.stdout
    assert "%(" not in help.stdout
    assert "None" not in help.stdout
    assert max(map(len, help.stdout.splitlines())) <= 100
    for slow in ("torch", "gradio"):  # seconds each
        assert f"| {slow}\n" not in help.stderr


def test_a_taken_port_and_an_unknown_model_are_sentences():
    from studio.serve import build_studio, launch

    with pytest.raises(ValueError, match="There is no model 'lion'"):
        build_studio(Settings(checkpoint="lion"))
    with pytest.raises(ValueError, match="no checkpoint"):
        build_studio(Settings(checkpoint="/nowhere/lion.safetensors"))
    import gradio as gr

    with socket.socket() as taken, gr.Blocks() as blocks:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"^Error: .*{port}"):
            launch(blocks, Settings(port=port), block=False)


def test_where_the_page_cannot_listen_a_sentence_says_what_to_change():
    from studio.serve import require_address

    for host in ("127.0.0.1", "::1"):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
            taken.bind((host, 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(ValueError, match=rf"^Port {port} is in use.*--port or CAT_PORT\.$"):
                require_address(host, port)
        require_address(host, port)
    for host in ("192.0.2.1", "no.such.host.invalid", "2001:db8::1", "a b"):
        with pytest.raises(
            ValueError, match=r"^This machine has no address.*--host or CAT_HOST\.$"
        ):
            require_address(host, 0)


@pytest.mark.parametrize(("host", "at"), [("::1", "[::1]"), ("::", "[::1]")])
def test_the_page_listens_on_addresses_of_the_newer_kind(host, at):
    import gradio as gr
    import httpx

    from studio.serve import launch

    with gr.Blocks() as blocks:
        gr.Markdown("a page")
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
    address = launch(blocks, Settings(host=host, port=port), block=False)
    try:
        assert address == f"http://[{host}]:{port}/"
        assert httpx.get(f"http://{at}:{port}/", trust_env=False).is_success
    finally:
        blocks.close()


def test_the_page_knows_the_path_that_a_proxy_shows_it_at():
    import gradio as gr
    import httpx

    from studio.serve import launch

    with gr.Blocks() as blocks:
        gr.Markdown("a page")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch(blocks, Settings(port=port, root_path="/cats"), block=False)
    try:
        config = httpx.get(f"http://127.0.0.1:{port}/config", trust_env=False).json()
        assert config["root"].endswith("/cats")
    finally:
        blocks.close()


def test_memory_is_limited_before_all_else(monkeypatch):
    from studio import serve

    done = []
    monkeypatch.setattr(serve, "limit_arenas", lambda: done.append("arenas"))
    monkeypatch.setattr(serve, "keep_freed_memory", lambda: done.append("freed"))
    with pytest.raises(SystemExit, match="no address"):
        serve.serve(Settings(host="a b"))
    assert sorted(done) == ["arenas", "freed"]


def test_a_call_does_not_cost_more_the_more_there_were_before(monkeypatch):
    import gradio as gr

    from studio import serve  # noqa: F401 - it says so as it is imported

    with gr.Blocks() as blocks:
        gr.Markdown("a page")
    blocks.queue()
    queue = blocks._queue
    monkeypatch.setattr(queue, "_get_df", lambda records: pytest.fail("All are counted anew."))
    queue.events_recorded = 10_000
    queue.compute_analytics_summary([{"function": "generate"}] * 10_000)


def test_share_without_a_tunnel_goes_on_locally(monkeypatch, capsys, tmp_path):
    import gradio as gr

    from studio.serve import launch

    def no_tunnel(*args, **kwargs):
        raise OSError("no way out")

    monkeypatch.setattr("gradio.networking.setup_tunnel", no_tunnel)
    with gr.Blocks() as blocks:
        gr.Markdown("a page")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = launch(blocks, Settings(port=port, share=True), block=False)
    said = capsys.readouterr().err
    blocks.close()
    assert str(port) in address
    assert "Anybody who has the public link" in said
    assert "No public link could be made here" in said
    assert "Cat Diffusion is at http" in said


def test_a_checkpoint_by_its_file_and_not_what_lies_beside_it(tiny_folder, tmp_path):
    from studio.serve import build_studio

    for name in ("tiny", "private"):
        shutil.copy(tiny_folder / "tiny.safetensors", tmp_path / f"{name}.safetensors")
    studio = build_studio(Settings(checkpoint=str(tmp_path / "tiny.safetensors")))
    assert "private" not in studio.library.names
    assert studio.library.default == "tiny"
