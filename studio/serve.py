"""Builds the page and serves it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
# Else Gradio counts its last 10,000 calls anew after each one, for a page that nobody sees here.
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**12))

import gradio as gr
import torch
from gradio.tunneling import CURRENT_TUNNELS
from starlette.middleware import Middleware

from diffusion.checkpoint import SHIPPED, find_checkpoint
from diffusion.device import keep_freed_memory, limit_arenas

from . import space
from .admin import html as admin_page
from .admin.parts import Admin, build_admin
from .admin.routes import AdminRoutes
from .admin.tab import AdminTab
from .disk import errors_as_sentences
from .drawing.library import ModelLibrary
from .drawing.png_metadata import MAX_UPLOAD_BYTES
from .drawing.worker import Studio
from .health import HealthRoutes
from .hub import fetch_model
from .page import look as page
from .page.answers import AnsweringBlocks
from .page.api import add_endpoints
from .page.examples import Examples
from .page.explore.route import LiveRoute
from .page.explore.tab import ExploreTab
from .page.generate.tab import GenerateTab
from .page.previews import Previews
from .safety.guard import Guard
from .safety.journal import open_journal
from .safety.mailboxes import Mailboxes
from .safety.temporary import TemporaryFolder
from .settings import SHARE_WARNING, Settings
from .training.tuned import DEFAULT_NAME

TITLE = "Cat Diffusion"
REFUSED = (page.ASSETS / "refused.js").read_text(encoding="utf-8")
FIRST_MODEL = "cat-heads-256"  # of those that are shipped, the one that is chosen at first
MAX_VISITS = 256  # whose pages Gradio remembers, with what they show: a megabyte or two each
CACHE_SECONDS = (3600, 6 * 3600)  # look every hour, delete what is six hours old
END_SECONDS = 4.0  # from being told to end: whoever manages services kills what needs much longer


def build_studio(settings: Settings) -> Studio:
    """The models and the worker, nothing loaded yet. Raises ValueError without a usable model."""
    places, default = [SHIPPED, settings.data_dir / "models"], settings.checkpoint
    repo = os.environ.get("CHECKPOINT_REPO", "")
    fetched = fetch_model(repo, settings.data_dir) if repo else None
    if fetched:
        places.insert(0, fetched)  # also where a shipped one has its name
    if default and Path(default).suffix == ".safetensors":
        path = find_checkpoint(default)
        places.insert(0, path)  # not its folder: what else lies there is nobody's business
        default = path.stem
    default_file = settings.data_dir / DEFAULT_NAME
    library = ModelLibrary(
        places,
        default=default or (fetched.stem if fetched else FIRST_MODEL),
        default_file=default_file,
    )
    if default and default not in library.names:
        raise ValueError(f"There is no model '{default}'; there are {', '.join(library.names)}.")
    library.get()
    return Studio(library, max_waiting=settings.max_queue)


def build_page(
    studio: Studio, examples: Examples | None = None, admin: Admin | None = None
) -> gr.Blocks:
    """The whole page; without ``admin`` it has no Admin tab."""
    with AnsweringBlocks(title=TITLE, delete_cache=CACHE_SECONDS) as blocks:
        gr.HTML(
            f"<h1>{page.MARK.read_text(encoding='utf-8')}{TITLE}</h1>"
            "<p>Cats that never existed, formed out of noise on this machine.</p>"
            '<span id="said" role="status"></span>',
            elem_id="title",
        )
        add_endpoints(studio)  # first, so that the plain names are theirs
        tab = GenerateTab(studio, examples or Examples(studio))
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Generate", id="generate"):
                tab.build(blocks)
            with gr.Tab("Explore", id="explore"):
                ExploreTab(studio).build(blocks, tab.model)
            if admin is not None:
                with gr.Tab("Admin", id="admin"):
                    AdminTab(admin).build(blocks, tab.model)
    return blocks


def serve(settings: Settings) -> None:
    """Build the page and serve it until Ctrl-C or SIGTERM; a mistake in the settings is one
    sentence. When it returns, trainings have had END_SECONDS to save; threads may still be busy."""
    keep_freed_memory()
    limit_arenas()
    threads = space.num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        require_address(settings.host, settings.port)
        open_journal(settings.log)
        temporary = _temporary_folder(settings)
        studio = build_studio(settings)
    except ValueError as error:
        sys.exit(f"Error: {error}")
    temporary.open()
    try:
        _serve(settings, studio, temporary)
    finally:
        temporary.close()


def _temporary_folder(settings: Settings) -> TemporaryFolder:
    """In the data folder or where it is asked for; the system's place where that is read-only."""
    try:
        return TemporaryFolder(Path(os.environ.get("GRADIO_TEMP_DIR") or settings.data_dir))
    except OSError:
        with errors_as_sentences():
            return TemporaryFolder(Path(tempfile.gettempdir(), "cat-diffusion"))


def _serve(settings: Settings, studio: Studio, temporary: TemporaryFolder) -> None:
    examples = Examples(studio)
    admin = build_admin(settings, studio)
    blocks = build_page(studio, examples, admin)
    temporary.keep_swept(Mailboxes(blocks).sweep)
    examples.begin()  # so that the first visit finds them
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: in order
    admin.trainings.start()
    if admin.owner.enabled:
        admin.trainings.estimates("")  # measured by the time that the owner asks
    try:
        launch(blocks, settings, block=True, studio=studio, admin=admin)
    finally:
        # A training that saves, a drawing's step, open pages: none of them waits for the others.
        _side_by_side(admin.trainings.close, studio.close, lambda: _close(blocks))


def _close(blocks: gr.Blocks) -> None:
    """Take no more requests, and end the streams of pages that are open, and a public link."""
    blocks.close(verbose=False)
    for tunnel in CURRENT_TUNNELS:
        tunnel.kill()


def _side_by_side(*chores: Callable[[], None], seconds: float = END_SECONDS) -> None:
    """Run chores at the same time, and return when all are done or ``seconds`` have passed."""
    threads = [threading.Thread(target=chore, daemon=True) for chore in chores]
    end = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def require_address(host: str, port: int) -> None:
    """Raises ValueError if this program cannot listen there; Gradio looks at IPv4 alone."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            if os.name == "posix":  # where it means only that a port just left may be used
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"Port {port} is in use; choose another with --port or CAT_PORT."
        elif error.errno in (errno.EACCES, errno.EPERM):
            reason = f"Port {port} is not for everybody; choose one with --port or CAT_PORT."
        else:
            reason = f"This machine has no address '{host}'; choose one with --host or CAT_HOST."
        raise ValueError(reason) from None


def _wait_for_a_signal() -> None:
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)


@asynccontextmanager
async def _guarded(app: Any) -> AsyncIterator[None]:
    """Put the guard around all else: Gradio's own middleware would answer before it otherwise."""
    app.middleware_stack = Guard(app.middleware_stack)
    yield


def launch(
    blocks: gr.Blocks,
    settings: Settings,
    *,
    block: bool,
    studio: Studio | None = None,
    admin: Admin | None = None,
) -> str:
    """Start the server and return its local address; with ``block``, return when it ends.

    ``studio`` draws previews of links, and is what ``/readyz`` tells of.
    """
    if settings.share:
        print(SHARE_WARNING, file=sys.stderr)
    inner = [] if admin is None else [Middleware(AdminRoutes, admin)]
    if studio is not None:
        inner.append(Middleware(HealthRoutes, studio))
        inner.append(Middleware(LiveRoute, studio))
        inner.append(Middleware(Previews, studio, settings.root_path))
    blocks.queue(max_size=settings.max_queue, api_open=False, default_concurrency_limit=1)
    options: dict[str, Any] = {
        "server_name": f"[{settings.host}]" if ":" in settings.host else settings.host,
        "root_path": settings.root_path or None,
        "server_port": settings.port or None,
        "prevent_thread_lock": True,
        "max_threads": settings.max_queue + 16,  # each visitor who waits holds one now and then
        "show_error": False,
        "quiet": True,
        "_frontend": False,  # no check that "/" answers within 3 s: a busy machine is slower
        "ssr_mode": False,
        "enable_monitoring": False,
        "run_history": False,
        "state_session_capacity": MAX_VISITS,
        "max_file_size": MAX_UPLOAD_BYTES,
        "allowed_paths": [],
        "footer_links": ["api"],
        "app_kwargs": {"middleware": inner, "lifespan": _guarded},
        "favicon_path": page.MARK,
        "theme": page.theme(),
        "css": page.CSS + admin_page.CSS,
        "head": f"<script>{REFUSED}</script>" + page.HEAD + admin_page.HEAD,
    }
    try:
        require_address(settings.host, settings.port)
        app, address, shared = blocks.launch(
            share=settings.share and not space.on_space(), **options
        )
    except (OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    if not isinstance(app.middleware_stack, Guard):
        sys.exit("Error: this version of Gradio does not let the guard stand in front of it.")
    print(f"Cat Diffusion is at {address}", file=sys.stderr)
    if admin is not None and admin.owner.enabled:
        print(
            f"If guessing keeps you out, this opens Admin once: {admin.owner.spare()}",
            file=sys.stderr,
        )
    if settings.share:
        message = f"Public link: {shared}" if shared else "No public link could be made here."
        print(message, file=sys.stderr)
    if block:
        _wait_for_a_signal()
    return address
