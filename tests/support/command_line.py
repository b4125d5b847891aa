"""The command line, called in this process."""

from __future__ import annotations

from diffusion.cli.main import main


def refused(capsys, *arguments) -> str:
    """The one sentence that a bad command ends in."""
    assert main(list(arguments)) == 1
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert "Traceback" not in captured.err
    assert last.startswith("Error: ")
    assert ("\n" + captured.err).count("\nError: ") == 1
    return last.removeprefix("Error: ")
