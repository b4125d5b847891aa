"""The picture editor: what it hands to the actions."""

from __future__ import annotations

from gradio.components.image_editor import EditorData
from gradio.data_classes import FileData
from PIL import Image

from studio.page.editor import PictureEditor


def test_the_editor_hands_over_files_undecoded(upload_folder, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image, "open", never)
    editor = PictureEditor(render=False)
    file = FileData(path=str(upload_folder / "huge.png"))
    value = editor.preprocess(EditorData(background=file, layers=[file], composite=None))
    assert value == {"background": file.path, "layers": [file.path], "composite": None}
    assert editor.preprocess(None) is None
    assert editor.get_block_name() == "imageeditor"
    assert not editor.server_fns
