"""The owner's routes without the page, and the page with real trainings in a real browser."""

from __future__ import annotations

import pytest
from admin_fixtures import PASSWORD, app_of, fake_admin
from starlette.testclient import TestClient
from studio_fixtures import launch_page, save_tiny

from studio.admin.parts import build_admin
from studio.drawing.library import ModelLibrary
from studio.drawing.worker import Studio
from studio.settings import Settings
from studio.training import process
from studio.training.tuned import DEFAULT_NAME


@pytest.fixture
def admin(studio, tmp_path):
    return fake_admin(studio, tmp_path)


@pytest.fixture
def stranger(admin) -> TestClient:
    return TestClient(app_of(admin))


@pytest.fixture
def owner(admin) -> TestClient:
    client = TestClient(app_of(admin))
    assert client.post("/admin/sign-in", json={"password": PASSWORD}).status_code == 200
    return client


@pytest.fixture(scope="module")
def served(tmp_path_factory, upload_folder):
    """The page over the tiny model, with real trainings."""
    folder = tmp_path_factory.mktemp("owner")
    shipped = save_tiny(folder / "shipped" / "tiny.safetensors").parent
    data = folder / "data"
    places, default_file = [shipped, data / "models"], data / DEFAULT_NAME
    studio = Studio(ModelLibrary(places, default="tiny", default_file=default_file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADMIN_PASSWORD", PASSWORD)
        admin = build_admin(Settings(data_dir=data), studio)
        patch.setattr(process, "_lower_priority", lambda pid: None)  # this test waits for it
        admin.trainings.start()
        yield launch_page(studio, data, admin), admin
        admin.trainings.close()


@pytest.fixture
def visit(browser, served):
    """Opens the Admin tab; in the end nothing was asked of other hosts and nothing went wrong."""
    from browsing import open_tab, visits  # a module that is skipped where Playwright is missing

    with visits(browser, served[0].url, told=401) as open_page:

        def visit(**how):
            opened = open_page(**how)
            opened.on("dialog", lambda dialog: dialog.accept())
            open_tab(opened, "Admin")
            return opened

        yield visit
