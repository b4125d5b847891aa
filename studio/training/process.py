"""The process of a training: started so that it outlives this one, found again, and ended.

A running process holds the lock on a file in its training's folder, which it inherits. The kernel
frees that when the process ends, however it ends, so a lock that is held is a process that lives:
no number that another process has got meanwhile, and no program that died, can pretend it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

import diffusion

from ..disk import hold, is_held
from .training_folder import LOG_NAME, STARTED

LOCK_NAME = "process.lock"
ROOT = Path(diffusion.__file__).resolve().parent.parent
SECRETS = ("ADMIN_PASSWORD", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN")


def is_alive(folder: Path) -> bool:
    """Whether the process of the training in ``folder`` runs."""
    return is_held(folder / LOCK_NAME)


def launch(
    command: Sequence[str], folder: Path, *, started: Callable[[int], None]
) -> subprocess.Popen[bytes]:
    """Start ``command`` with ``--out`` and a training's folder; its words go to the log there.

    ``started`` is told its number; if that fails, the process is ended. Raises OSError.
    """
    arguments = [*command, "--out", str(folder.resolve())]
    with hold(folder / LOCK_NAME) as lock, (folder / LOG_NAME).open("ab") as log:
        log.write(f"{STARTED}started {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        log.flush()
        process = start_niced(arguments, stdout=log, stderr=subprocess.STDOUT, pass_fds=(lock,))
        try:
            started(process.pid)
        except BaseException:
            process.kill()
            process.wait()
            raise
    return process


def start_niced(
    arguments: Sequence[str],
    *,
    stdout: int | IO[bytes] | None,
    stderr: int | IO[bytes] | None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """A process of the lowest priority, in a session of its own, that knows none of our secrets."""
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    process = subprocess.Popen(
        list(arguments),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        cwd=ROOT,
        env=environment,
        start_new_session=True,  # Ctrl-C in our terminal is not for it
        pass_fds=pass_fds,
    )
    _lower_priority(process.pid)
    return process


def _lower_priority(pid: int) -> None:
    """Let visitors' cats go first. From here, as code between fork and exec is not safe beside
    threads; the process has none of its own yet, and those that it makes are as low."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, 19)
    with suppress(OSError):
        # Linux may share the processor out among sessions first: then niceness counts within one
        # only, and the session's own has to be lowered (man 7 sched, "The autogroup feature").
        Path(f"/proc/{pid}/autogroup").write_text("19")


def require_reach(folder: Path, pid: int) -> None:
    """Raises ValueError if a training's process lives, but is not the one of that number here: it
    runs in another container, say."""
    if is_alive(folder) and (pid <= 1 or _is_strangers(folder, pid)):
        raise ValueError("This training runs in a process that this program cannot control.")


def _is_strangers(folder: Path, pid: int) -> bool:
    """Whether that number belongs to a process that was not started for ``folder``.

    Told by its command line: the time of its start, as systems tell it, moves with the clock.
    """
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:  # or it has just ended
        return False
    except psutil.AccessDenied:
        return True
    return bool(words) and str(folder.resolve()) not in words  # none: it is about to end


def ask_to_end(folder: Path, pid: int) -> None:
    """Ask a training's process to save all and leave. Raises ValueError if it is out of reach."""
    require_reach(folder, pid)
    if is_alive(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def kill(folder: Path, pid: int, *, seconds: float = 5.0) -> bool:
    """End a training's process, and what it has started, at once; returns whether it is gone.

    Raises ValueError if it is out of reach.
    """
    require_reach(folder, pid)
    if is_alive(folder):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return wait_for_end(folder, seconds)


def wait_for_end(folder: Path, seconds: float) -> bool:
    """Wait until a training's process is gone, at most so long; returns whether it is."""
    end = time.monotonic() + seconds
    while is_alive(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
