"""Builds the page and serves it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
import torch
from starlette.middleware import Middleware

from diffusion.checkpoint import SHIPPED, find_checkpoint
from diffusion.device import keep_freed_memory, limit_arenas

from . import space
from .admin import html as admin_page
from .admin.parts import Admin, build_admin
from .admin.routes import AdminRoutes
from .admin.tab import AdminTab
from .drawing.library import ModelLibrary
from .drawing.png_metadata import MAX_UPLOAD_BYTES
from .drawing.worker import Studio
from .page import look as page
from .page.answers import AnsweringBlocks
from .page.api import add_endpoints
from .page.examples import Examples
from .page.generate_tab import GenerateTab
from .safety.guard import Guard
from .settings import SHARE_WARNING, Settings
from .training.tuned import DEFAULT_NAME

TITLE = "Cat Diffusion"
MAX_VISITS = 256  # whose pages Gradio remembers, with what they show: a megabyte or two each
CACHE_SECONDS = (3600, 6 * 3600)  # look every hour, delete what is six hours old


def build_studio(settings: Settings) -> Studio:
    """The models and the worker, nothing loaded yet. Raises ValueError without a usable model."""
    places, default = [SHIPPED, settings.data_dir / "models"], settings.checkpoint
    if default and Path(default).suffix == ".safetensors":
        path = find_checkpoint(default)
        places.insert(0, path)  # not its folder: what else lies there is nobody's business
        default = path.stem
    default_file = settings.data_dir / DEFAULT_NAME
    library = ModelLibrary(places, default=default, default_file=default_file)
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
            f"<h1>{TITLE}</h1><p>Cats that never existed, formed out of noise on this machine.</p>"
            '<span id="said" role="status"></span>',
            elem_id="title",
        )
        add_endpoints(studio)  # first, so that the plain names are theirs
        tab = GenerateTab(studio, examples or Examples(studio))
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Generate", id="generate"):
                tab.build(blocks)
            if admin is not None:
                with gr.Tab("Admin", id="admin"):
                    AdminTab(admin).build(blocks, tab.model)
    return blocks


def serve(settings: Settings) -> None:
    """Build the page and serve it until Ctrl-C; a mistake in the settings is one sentence."""
    keep_freed_memory()
    limit_arenas()
    threads = space.num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        studio = build_studio(settings)
    except ValueError as error:
        sys.exit(f"Error: {error}")
    examples = Examples(studio)
    examples.begin()  # so that the first visit finds them
    admin = build_admin(settings, studio)
    blocks = build_page(studio, examples, admin)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: in order
    admin.trainings.start()
    try:
        launch(blocks, settings, block=True, admin=admin)
    finally:
        admin.trainings.close()
        studio.close()


def launch(
    blocks: gr.Blocks, settings: Settings, *, block: bool, admin: Admin | None = None
) -> str:
    """Start the server and return its local address; with ``block``, return when it ends."""
    if settings.share:
        print(SHARE_WARNING, file=sys.stderr)
    behind_proxy = settings.share or space.on_space()
    guards = [Middleware(Guard, behind_proxy=behind_proxy)]
    if admin is not None:
        guards.append(Middleware(AdminRoutes, admin))
    blocks.queue(max_size=settings.max_queue, api_open=False, default_concurrency_limit=1)
    options = {
        "server_name": settings.host,
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
        "app_kwargs": {"middleware": guards},
        "theme": page.theme(),
        "css": page.CSS + admin_page.CSS,
        "head": page.HEAD + admin_page.HEAD,
    }
    try:
        _, address, shared = blocks.launch(share=settings.share and not space.on_space(), **options)
    except OSError as error:
        sys.exit(f"Error: {error}")
    print(f"Cat Diffusion is at {address}", file=sys.stderr)
    if settings.share:
        message = f"Public link: {shared}" if shared else "No public link could be made here."
        print(message, file=sys.stderr)
    if block:
        blocks.block_thread()
    return address
