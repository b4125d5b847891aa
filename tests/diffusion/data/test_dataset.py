"""From folders and zips of anything to batches: nothing trusted, nothing lost in silence."""

import os
import pickle
import signal
import unicodedata

import pytest
import torch
from drawing import cat, cats, encode, write_folder, write_labels, write_zip

from diffusion.checkpoint import CheckpointInfo
from diffusion.config import ModelConfig
from diffusion.data import dataset as data
from diffusion.data.dataset import (
    batch_indices,
    crop_box,
    load_images,
    random_crop,
    random_mirror,
    training_batches,
)
from diffusion.data.sources import Zip, read_labels

SIZE = 16


# -- labels -----------------------------------------------------------------------------------


def test_labels_are_found_by_path_or_name_and_the_rest_stays_unlabelled(tmp_path):
    decomposed = unicodedata.normalize("NFD", "café.png")  # as macOS writes it
    files = {f"a/{name}": data for name, data in cats(8).items()} | {decomposed: encode(cat(30))}
    path = write_zip(tmp_path / "cats.zip", files)
    csv = tmp_path / "labels.csv"
    rows = "label,file,by\ntabby,a/cat-000.png,me\n black ,cat-001.png\n,cat-002.png,me\nwhite\n"
    csv.write_text(rows + "ginger,café.png\ntabby,gone.png\n", encoding="utf-8-sig")
    images = load_images(path, image_size=SIZE, labels_csv=csv)
    assert images.labels == ("black", "ginger", "tabby", "white")
    named = {images.names[i]: c for i, c in enumerate(images.classes.tolist()) if c >= 0}
    assert named == {"a/cat-000.png": 2, "a/cat-001.png": 0, decomposed: 1}


def test_one_name_in_two_spellings_is_one_label(folder, tmp_path):
    spellings = [unicodedata.normalize(form, "Zoé") for form in ("NFC", "NFD")]
    rows = {f"cat-{i:03d}.png": spellings[i % 2] for i in range(12)}
    images = load_images(folder, image_size=SIZE, labels_csv=write_labels(tmp_path / "l.csv", rows))
    assert images.labels == ("Zoé",)
    assert (images.classes == 0).all()
    model = ModelConfig(image_size=16, channels=8, num_classes=1)
    for spelling in spellings:
        info = CheckpointInfo(model=model, labels=(spelling,))
        assert [info.label_index(asked) for asked in spellings] == [0, 0]


def test_rows_and_pictures_that_do_not_match_are_counted(folder, tmp_path):
    rows = {f"cat-{i:03d}.jpeg": "orange" for i in range(11)} | {"cat-011.png": "tabby"}
    csv = write_labels(tmp_path / "labels.csv", rows)
    told = load_images(folder, image_size=SIZE, labels_csv=csv).summary()
    assert told.splitlines()[1] == "11 rows name no picture, 11 pictures have no label"
    all_named = write_labels(csv, {f"cat-{i:03d}.png": "orange" for i in range(12)})
    told = load_images(folder, image_size=SIZE, labels_csv=all_named).summary()
    assert told == "12 pictures, 0 left out"
    all_but_one = write_labels(csv, {f"cat-{i:03d}.png": "orange" for i in range(11)})
    told = load_images(folder, image_size=SIZE, labels_csv=all_but_one).summary()
    assert told.splitlines()[1] == "0 rows name no picture, 1 pictures have no label"


def test_several_sets_and_tables_are_one(folder, tmp_path):
    more = write_zip(tmp_path / "more.zip", cats(20))  # its first 12 are those of the folder
    tables = [
        write_labels(tmp_path / "a.csv", {"cat-001.png": "tabby", "cats/cat-002.png": "white"}),
        write_labels(tmp_path / "b.csv", {"cat-015.png": "bengal"}),
    ]
    images = load_images([folder, more], image_size=SIZE, labels_csv=tables)
    assert images.labels == ("bengal", "tabby", "white")
    assert images.names[:2] == ("cats/cat-000.png", "cats/cat-001.png")
    assert images.names[12:] == tuple(f"more/cat-{i:03d}.png" for i in range(12, 20))
    assert images.label_counts == (1, 1, 1)
    assert images.classes[[1, 2, 15]].tolist() == [1, 2, 0]
    alone = load_images(more, image_size=SIZE)
    assert torch.equal(images.pixels[12:], alone.pixels[12:])
    with pytest.raises(ValueError, match=r"^Several sets of pictures must have different names\.$"):
        load_images([folder, folder], image_size=SIZE)
    tables.append(write_labels(tmp_path / "c.csv", {"cat-015.png": "birman"}))
    with pytest.raises(ValueError, match=r"labelled 'bengal' and, in c\.csv, 'birman'"):
        load_images([folder, more], image_size=SIZE, labels_csv=tables)


def test_copies_are_kept_if_that_is_wanted(folder):
    (folder / "again.jpg").write_bytes(encode(cat(4), "JPEG", quality=95))
    assert len(load_images(folder, image_size=SIZE)) == 12
    assert len(load_images(folder, image_size=SIZE, keep_copies=True)) == 13


def test_the_models_own_labels_fix_their_order(folder, tmp_path):
    csv = write_labels(tmp_path / "labels.csv", {"cat-003.png": "tabby"})
    images = load_images(folder, image_size=SIZE, labels_csv=csv, labels=("white", "tabby"))
    assert images.labels == ("white", "tabby")
    assert images.classes[images.names.index("cat-003.png")] == 1
    with pytest.raises(ValueError, match=r"^The labels tabby are not known to this model\.$"):
        load_images(folder, image_size=SIZE, labels_csv=csv, labels=("white",))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "needs the columns 'file' and 'label'"),
        (b"name,coat\na.png,tabby\n", "needs the columns 'file' and 'label'"),
        (b"file,label\n\xff\xfe\n", "is not a CSV file in UTF-8"),
        (b"file,label\nother.png,tabby\n", "does not name any of the pictures in"),
    ],
)
def test_a_wrong_labels_file_is_a_sentence(folder, tmp_path, content, sentence):
    csv = tmp_path / "labels.csv"
    csv.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^labels\.csv {sentence}"):
        load_images(folder, image_size=SIZE, labels_csv=csv)
    with pytest.raises(ValueError, match="There is no file of labels at"):
        read_labels(tmp_path / "nowhere.csv")


# -- the set ----------------------------------------------------------------------------------


def test_what_is_held_out_depends_on_the_names_alone(folder, tmp_path):
    write_folder(folder, {f"more-{i}.png": encode(cat(100 + i)) for i in range(28)})
    images = load_images(folder, image_size=SIZE)
    training, held = images.split(3)
    assert len(held) == 3
    assert set(training.names) | set(held.names) == set(images.names)
    assert not set(training.names) & set(held.names)
    shuffled = images.subset(torch.randperm(len(images)).tolist())
    assert set(shuffled.split(3)[1].names) == set(held.names)
    assert len(images.split(300)[1]) == len(images) // 10  # at most a tenth
    for i, name in enumerate(held.names):
        assert torch.equal(held.pixels[i], images.pixels[images.names.index(name)])

    newer = {f"new-{i}.png": encode(cat(200 + i)) for i in range(20)}
    write_folder(folder, newer)
    grown = set(load_images(folder, image_size=SIZE).split(3)[1].names)
    assert len(set(held.names) - grown) == len(grown & set(newer))  # new ones may push out, only


def test_squares_are_resized_and_photos_keep_a_margin(folder):
    aligned = load_images(folder, image_size=SIZE)
    assert aligned.stored_size == SIZE
    (folder / "wide.png").write_bytes(encode(cat(90, 48).crop((0, 0, 48, 36))))
    photos = load_images(folder, image_size=SIZE)
    assert photos.stored_size == SIZE * 5 // 4
    assert photos.pixels.shape[-1] == photos.stored_size
    assert load_images(folder, image_size=SIZE, photos=False).stored_size == SIZE


def test_every_epoch_shows_each_picture_once():
    for batch_size in (4, 5, 23):  # 23: a batch that spans epochs
        steps = 3 * 10 * batch_size
        shown = torch.cat([batch_indices(10, batch_size, s, seed=7) for s in range(steps)])
        epochs = shown[: len(shown) // 10 * 10].reshape(-1, 10)
        assert (epochs.sort(dim=1).values == torch.arange(10)).all()
        assert len({tuple(epoch) for epoch in epochs[:20].tolist()}) > 15  # each in its own order


def test_a_batch_is_a_function_of_its_arguments():
    torch.manual_seed(1)
    first = batch_indices(100, 8, 5, seed=3)
    torch.manual_seed(2)
    assert torch.equal(batch_indices(100, 8, 5, seed=3), first)
    assert not torch.equal(batch_indices(100, 8, 5, seed=4), first)
    assert not torch.equal(batch_indices(100, 8, 6, seed=3), first)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
@pytest.mark.parametrize("photos", [False, True])
def test_streaming_gives_the_same_batches(tmp_path, photos):
    path = write_zip(tmp_path / "cats.zip", cats(12))
    labels = write_labels(tmp_path / "l.csv", {"cat-001.png": "tabby", "cat-002.png": "white"})
    options = {"image_size": SIZE, "labels_csv": labels, "photos": photos}
    memory = load_images(path, **options)
    stream = load_images(path, **options, in_memory_bytes=0)
    assert stream.pixels is None
    assert torch.equal(stream.split(2)[1].classes, memory.split(2)[1].classes)
    expected = training_batches(memory, 5, first_step=3, seed=1)
    here = training_batches(stream, 5, first_step=3, seed=1, workers=0)
    workers = training_batches(stream, 5, first_step=3, seed=1, workers=2)
    for step in range(3, 9):
        pictures, classes = next(expected)
        indices = batch_indices(len(memory), 5, step, seed=1)
        assert torch.equal(pictures, memory.pixels[indices])
        assert torch.equal(classes, memory.classes[indices])
        for batches in (here, workers):
            same, same_classes = next(batches)
            assert torch.equal(same, pictures)
            assert torch.equal(same_classes, classes)


def test_a_set_can_be_sent_to_a_process(tmp_path):
    images = load_images(write_zip(tmp_path / "cats.zip", cats(8)), image_size=SIZE)
    indices = torch.tensor([3, 1])
    sent = pickle.loads(pickle.dumps(images))
    read = pickle.loads(pickle.dumps(load_images(images.source.path, image_size=SIZE,
                                                 in_memory_bytes=0)))  # fmt: skip
    for other in (sent, read):
        assert torch.equal(other.get(indices)[0], images.pixels[indices])


def test_a_forked_process_opens_the_zip_anew(tmp_path, monkeypatch):
    """Two processes that read through one open file would move each other's position."""
    source = Zip(write_zip(tmp_path / "cats.zip", cats(8)))
    archive = source.archive()
    assert source.archive() is archive
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert source.archive() is not archive


def test_shares_make_up_the_batch(folder):
    images = load_images(folder, image_size=SIZE)
    whole, _ = next(training_batches(images, 6, first_step=2, seed=0))
    for rank in range(2):
        share = slice(rank, None, 2)
        part, _ = next(training_batches(images, 6, first_step=2, seed=0, share=share))
        assert torch.equal(part, whole[share])


def test_workers_outlive_the_signals_of_their_group_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "GRACE_SECONDS", 1)
    path = write_zip(tmp_path / "cats.zip", cats(8))
    images = load_images(path, image_size=SIZE, in_memory_bytes=0)
    batches = training_batches(images, 4, first_step=0, seed=0, workers=1)
    next(batches)
    [worker] = batches._workers
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    for _ in range(5):
        assert next(batches)[0].shape == (4, 3, SIZE, SIZE)
    worker.join(20)
    assert worker.exitcode == 0  # or a program that fails could not leave


def test_a_picture_that_changes_under_way_is_named(folder):
    images = load_images(folder, image_size=SIZE, in_memory_bytes=0)
    (folder / "cat-003.png").write_text("gone")
    with pytest.raises(
        ValueError, match=r"^cat-003\.png has changed since it was first read: not an image\.$"
    ):
        images.get(torch.arange(12))


# -- crops and mirrors ------------------------------------------------------------------------


def test_crops_stay_inside_and_take_most_of_the_picture():
    generator = torch.Generator().manual_seed(0)
    boxes = {crop_box(80, generator) for _ in range(500)}
    assert len(boxes) > 300
    for top, left, height, width in boxes:
        assert min(top, left) >= 0
        assert top + height <= 80
        assert left + width <= 80
        assert 0.69 < height * width / 80**2 <= 1  # 0.8, less where a long side is cut at the edge
    assert min(top for top, *_ in boxes) == 0
    assert max(top + height for top, _, height, _ in boxes) == 80


def test_a_crop_depends_on_its_generator_alone():
    pictures = torch.randint(256, (3, 3, 20, 20), dtype=torch.uint8)
    one, same, other = (
        random_crop(pictures, 16, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert one.shape == (3, 3, 16, 16)
    assert one.dtype == torch.uint8
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert random_crop(pictures, 20, torch.Generator()) is pictures


def test_half_of_the_pictures_are_mirrored():
    pictures = torch.randint(256, (400, 3, 4, 4), dtype=torch.uint8)
    shown = random_mirror(pictures, torch.Generator().manual_seed(0))
    kept = (shown == pictures).flatten(1).all(dim=1)
    mirrored = (shown == pictures.flip(3)).flatten(1).all(dim=1)
    assert (kept ^ mirrored).all()
    assert 150 < mirrored.sum() < 250
