"""Pictures that the owner uploads, on their way to a training: stored, looked at, cropped, chosen.

A set is a folder ``data/uploads/ID``:

    incoming/TIME-N.bin     what arrived and has not been looked at, with .name, what it was called
    pictures/0001.png       what a picture became: upright RGB, shorter side at most 640, ours
    set.json                what is known of each picture, and why files were left out

The names that files came with are shown and never used as names of files here. What arrives is
looked at in one thread, in the order of arrival; the page asks how far that is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from PIL import Image, ImageOps

from diffusion.config import MAX_PICTURES
from diffusion.data import MIN_IMAGES
from diffusion.images import decode_photo, difference_hash, find_copies, fit_square
from diffusion.sources import MAX_FILE_BYTES, Skipped, Zip

from ..disk import errors_as_sentences, require_room

MAX_ARCHIVE_BYTES = 1_000_000_000  # of one zip
MAX_UNPACKED_BYTES = 4_000_000_000  # read out of one zip, all entries together
MAX_ENTRIES = 10_000  # of one zip
MAX_DIRECTORY_BYTES = 400 * MAX_ENTRIES  # of one zip: 46 bytes and a name for each entry
MAX_INCOMING_BYTES = 4_000_000_000  # that wait to be looked at, in one set
MAX_LEFT_OUT = 2000  # lines that are kept; more are counted
MIN_FREE_BYTES = 1_000_000_000  # no upload is taken below
MIN_SIDE = 64  # pixels: half of the largest shipped network's pictures, as in training
STORED_SIDE = 640  # of a stored picture's shorter side: room to crop, small enough to keep
LONGEST_SIDE = 4 * STORED_SIDE
SQUARE_SIDE = 512  # what a training is given at most
SET_SECONDS = 7 * 86400  # a set that nobody touched so long is cleared when the next one begins
SAVE_SECONDS = 1.0  # between saves while many pictures are looked at
MAX_NAME = 200  # characters that are shown of a name

TOO_MANY_ENTRIES = f"an archive of more than {MAX_ENTRIES:,} files"
NO_ARCHIVE = "not a whole zip archive"


class NoSuchSet(ValueError):
    """A set or picture that is not here (any more)."""


@dataclass(frozen=True)
class Picture:
    """One picture of a set. ``hash`` and ``mirror`` are difference hashes in hexadecimal."""

    number: int
    name: str
    width: int  # of the stored picture
    height: int
    digest: str  # SHA-256 of the file that it came in
    hash: str
    mirror: str
    square: tuple[int, int, int] | None = None  # left, top, side in stored pixels; None: centre
    removed: bool = False

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the square that the network will see."""
        side = min(self.width, self.height)
        left, top = (self.width - side) // 2, (self.height - side) // 2
        if self.square is not None:
            left, top, side = self.square
        return left, top, left + side, top + side


@dataclass(frozen=True)
class SetView:
    """How a set stands."""

    id: str
    pictures: tuple[Picture, ...]  # those that can be trained on, in the order of their numbers
    left_out: tuple[Skipped, ...]
    more_left_out: int  # files left out beyond those that are listed
    waiting: int  # files that have arrived and are not yet looked at

    @property
    def chosen(self) -> list[Picture]:
        """Pictures that a training would get."""
        return [picture for picture in self.pictures if not picture.removed]


@dataclass
class _Contents:
    """What set.json holds."""

    pictures: dict[int, Picture] = field(default_factory=dict)
    left_out: list[Skipped] = field(default_factory=list)
    more_left_out: int = 0

    def leave_out(self, name: str, reason: str) -> None:
        if len(self.left_out) < MAX_LEFT_OUT:
            self.left_out.append(Skipped(name, reason))
        else:
            self.more_left_out += 1


class PictureSet:
    """One set; see the head of this file. All methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.id, self.folder = folder.name, folder
        self._lock = threading.RLock()
        self._looking = threading.Lock()  # one thread looks, or a file would be taken in twice
        self._arrivals = 0
        self._contents = _read_contents(folder / "set.json")

    # -- what arrives ---------------------------------------------------------------------------

    def receive(self, name: str, *, num_bytes: int = 0) -> Incoming:
        """A place for one file that is about to arrive, said to have so many bytes.

        Raises ValueError, or OSError from the disk.
        """
        if num_bytes > MAX_ARCHIVE_BYTES:
            raise ValueError(f"At most {MAX_ARCHIVE_BYTES // 1_000_000} MB in one file.")
        require_room(self.folder, MIN_FREE_BYTES + num_bytes)
        with self._lock:
            if sum(map(_size, self._waiting())) > MAX_INCOMING_BYTES:
                raise ValueError("Too much is waiting to be looked at. Try again in a minute.")
            self._arrivals += 1
            stem = f"{time.time_ns():020d}-{self._arrivals:08d}"
        return Incoming(self.folder / "incoming" / stem, _shown(name))

    def add(self, name: str, chunks: Iterable[bytes]) -> None:
        """Store a file and look at it at once."""
        with self.receive(name) as incoming:
            for chunk in chunks:
                incoming.write(chunk)
            incoming.keep()
        self.look()

    def look(self) -> None:
        """Look at all that has arrived."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        looked_at: list[Path] = []
        saved = time.monotonic()
        for path in self._waiting():
            name = path.with_suffix(".name").read_text("utf-8", "replace")
            try:
                with errors_as_sentences():
                    for _ in self._look_at(path, name):
                        if time.monotonic() - saved > SAVE_SECONDS:
                            self._save()
                            saved = time.monotonic()
            except ValueError as error:
                self._leave_out(name, str(error).rstrip("."))
            except Exception:  # one strange file must not keep the others waiting for ever
                traceback.print_exc()
                self._leave_out(name, "could not be read; the server's log says why")
            looked_at.append(path)
            if time.monotonic() - saved > SAVE_SECONDS:
                self._done_with(looked_at)
                saved = time.monotonic()
        self._done_with(looked_at)

    def _done_with(self, paths: list[Path]) -> None:
        """Put on record that files were looked at, and forget them; on a full disk only that."""
        if not paths:
            return
        with contextlib.suppress(OSError):
            self._save()
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                path.with_suffix(".name").unlink(missing_ok=True)
        paths.clear()

    def _look_at(self, path: Path, name: str) -> Iterator[None]:
        """Take in one file; yields after each picture. Raises ValueError for a useless archive."""
        if not is_zip(path):
            self._take(name, path.read_bytes())
            yield
            return
        archive = _open_zip(path)
        entries, skipped = archive.names()
        if len(entries) + len(skipped) > MAX_ENTRIES:
            raise ValueError(TOO_MANY_ENTRIES)
        for item in skipped:
            self._leave_out(f"{name}/{_shown(item.name)}", item.reason)
        unpacked = 0
        for entry in entries:
            shown = f"{name}/{_shown(entry)}"
            if unpacked > MAX_UNPACKED_BYTES:
                self._leave_out(shown, "the archive holds too many bytes")
                continue
            try:
                data = archive.read(entry)
            except ValueError as error:
                self._leave_out(shown, str(error))
                continue
            unpacked += len(data)
            self._take(shown, data)
            yield

    def _take(self, name: str, data: bytes) -> None:
        """Decode a picture and store it, or note why not."""
        digest = hashlib.sha256(data).hexdigest()
        try:
            self._require_new(digest)
            if data.startswith(b"PK\x03\x04"):
                raise ValueError("an archive inside the archive")
            image = small_enough(decode_photo(data))
        except ValueError as error:
            self._leave_out(name, str(error))
            return
        picture = Picture(
            number=0,
            name=name,
            width=image.width,
            height=image.height,
            digest=digest,
            hash=_pack(difference_hash(image)),
            mirror=_pack(difference_hash(ImageOps.mirror(image))),
        )
        with self._lock:
            number = max(self._contents.pictures, default=0) + 1
            require_room(self.folder, MIN_FREE_BYTES)
            _save_png(image, self.path(number))
            self._contents.pictures[number] = replace(picture, number=number)

    def _require_new(self, digest: str) -> None:
        """Raises ValueError if this very file is here already, or no room for more."""
        with self._lock:
            for picture in self._contents.pictures.values():
                if picture.digest == digest:
                    raise ValueError(f"the same file as {picture.name}")
            if len(self._contents.pictures) >= MAX_PICTURES:
                raise ValueError(f"over the limit of {MAX_PICTURES:,} pictures")

    # -- what is there --------------------------------------------------------------------------

    def scan(self) -> SetView:
        """What can be trained on, and what was left out and why, near-duplicates too."""
        with self._lock:
            pictures = [self._contents.pictures[n] for n in sorted(self._contents.pictures)]
            left_out = list(self._contents.left_out)
            more = self._contents.more_left_out
            waiting = len(self._waiting())
        # A removed picture stands in no other's way: of two alike, the better one may be chosen.
        chosen = [picture for picture in pictures if not picture.removed]
        copies = find_copies([_unpack(p.hash) for p in chosen], [_unpack(p.mirror) for p in chosen])
        for i, j in copies.items():
            left_out.append(Skipped(chosen[i].name, f"near-duplicate of {chosen[j].name}"))
        twice = {chosen[i].number for i in copies}
        kept = tuple(picture for picture in pictures if picture.number not in twice)
        return SetView(self.id, kept, tuple(left_out), more, waiting)

    def crop(self, number: int, square: object) -> Picture:
        """Let the network see the square (left, top, side), in pixels of the stored picture; None
        means the centre. Raises ValueError for a square that is not inside or too small."""
        picture = self.picture(number)
        if square is not None:
            square = _read_square(square, picture)
        return self._change(replace(picture, square=square))

    def remove(self, number: int) -> Picture:
        """Leave a picture out of the training."""
        return self._change(replace(self.picture(number), removed=True))

    def put_back(self, number: int) -> Picture:
        """Take a removed picture in again."""
        return self._change(replace(self.picture(number), removed=False))

    def picture(self, number: int) -> Picture:
        """The picture of that number. Raises NoSuchSet."""
        with self._lock:
            if number not in self._contents.pictures:
                raise NoSuchSet("There is no such picture.")
            return self._contents.pictures[number]

    def path(self, number: int) -> Path:
        """Where the stored picture of that number lies."""
        return self.folder / "pictures" / f"{number:04d}.png"

    def open(self, number: int) -> Image.Image:
        """The stored picture, whole."""
        self.picture(number)
        with Image.open(self.path(number), formats=["PNG"]) as image:
            return image.convert("RGB")

    def thumbnail(self, number: int, size: int) -> Image.Image:
        """The square of a picture as a network of ``size`` pixels will see it."""
        picture = self.picture(number)
        return fit_square(self.open(number).crop(picture.box), size)

    def squares(self, folder: Path) -> list[Path]:
        """Write the chosen squares as PNG files of at most 512 pixels; returns their paths.

        Raises ValueError if there are too few, or if something has not been looked at yet.
        """
        view = self.scan()
        if view.waiting:
            raise ValueError("The photos are still being looked at. Start when that is done.")
        if len(view.chosen) < MIN_IMAGES:
            raise ValueError(
                f"There are {len(view.chosen)} usable photos; at least {MIN_IMAGES} are needed."
            )
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for picture in view.chosen:
            left, top, right, bottom = picture.box
            square = self.open(picture.number).crop((left, top, right, bottom))
            path = folder / f"{picture.number:04d}.png"
            _save_png(fit_square(square, min(right - left, SQUARE_SIDE)), path)
            paths.append(path)
        return paths

    # -- what these share -----------------------------------------------------------------------

    def _waiting(self) -> list[Path]:
        return sorted((self.folder / "incoming").glob("*.bin"))

    def _change(self, picture: Picture) -> Picture:
        with self._lock:
            self._contents.pictures[picture.number] = picture
            self._save()
        return picture

    def _leave_out(self, name: str, reason: str) -> None:
        with self._lock:
            self._contents.leave_out(name, reason)

    def _save(self) -> None:
        with self._lock:
            text = json.dumps(asdict(self._contents), ensure_ascii=True)
            _write(self.folder / "set.json", text.encode())


class Incoming:
    """A file on its way in: a context that leaves nothing behind unless ``keep`` was called."""

    def __init__(self, stem: Path, name: str) -> None:
        self._part = stem.with_suffix(".part")
        self._name = name
        self._head, self._size = b"", 0

    def __enter__(self) -> Incoming:
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("xb")
        return self

    def write(self, chunk: bytes) -> None:
        """Append bytes. Raises ValueError beyond the limit for this kind of file."""
        self._head = (self._head + chunk)[:2]
        self._size += len(chunk)
        limit = MAX_ARCHIVE_BYTES if self._head == b"PK" else MAX_FILE_BYTES
        if self._size > limit:
            raise ValueError(f"{self._name} is larger than {limit // 1_000_000} MB.")
        self._file.write(chunk)

    def keep(self) -> None:
        """All has arrived: let it be looked at."""
        self._file.close()
        self._part.with_suffix(".name").write_text(self._name, "utf-8")
        self._part.rename(self._part.with_suffix(".bin"))

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


class PictureSets:
    """The sets of ``data/uploads``, the newest of which is the current one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._open: dict[str, PictureSet] = {}
        self._arrived: SimpleQueue[PictureSet] = SimpleQueue()
        # One thread, so one picture in memory at a time; a daemon, as a large zip is no reason to
        # keep a server from ending: what waits is looked at after the next start.
        threading.Thread(target=self._work, name="uploads", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                self._arrived.get().look()
            except Exception:  # a set that was deleted meanwhile, say
                traceback.print_exc()

    def current(self) -> PictureSet | None:
        """The newest set, which any browser of the owner shows; None if there is none."""
        ids = self._ids()
        return self.get(ids[-1]) if ids else None

    def create(self) -> PictureSet:
        """A new, empty set, which becomes the current one; sets nobody touched are cleared."""
        require_room(self.folder, MIN_FREE_BYTES)
        self._clear_old()
        identity = f"{time.time_ns():020d}-{secrets.token_hex(4)}"
        (self.folder / identity / "pictures").mkdir(parents=True)
        return self.get(identity)

    def get(self, identity: str) -> PictureSet:
        """The set of that id. Raises NoSuchSet; a name that is no id of ours is no path either."""
        with self._lock:
            if identity not in self._ids():
                raise NoSuchSet("These photos are not here any more.")
            if identity not in self._open:
                self._open[identity] = PictureSet(self.folder / identity)
                self._arrived.put(self._open[identity])  # what a restart left waiting
            return self._open[identity]

    def arrived(self, pictures: PictureSet) -> None:
        """Something was put into a set: have it looked at."""
        self._arrived.put(pictures)

    def delete(self, identity: str) -> None:
        """Forget a set with all its pictures."""
        pictures = self.get(identity)
        with self._lock:
            self._open.pop(identity, None)
        shutil.rmtree(pictures.folder, ignore_errors=True)

    def _ids(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir())

    def _clear_old(self) -> None:
        for identity in self._ids():
            newest = max(p.stat().st_mtime for p in self._parts(identity))
            if time.time() - newest > SET_SECONDS:
                self.delete(identity)

    def _parts(self, identity: str) -> Iterator[Path]:
        folder = self.folder / identity
        yield folder
        yield from (p for p in (folder / "set.json", folder / "incoming") if p.exists())


# -- helpers ----------------------------------------------------------------------------------


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it has just been looked at
        return 0


def small_enough(image: Image.Image) -> Image.Image:
    """A picture made small enough to keep. Raises ValueError if too little is left of it."""
    shrink = min(1, STORED_SIDE / min(image.size), LONGEST_SIDE / max(image.size))
    size = (round(image.width * shrink), round(image.height * shrink))
    if min(size) < MIN_SIDE:
        raise ValueError(
            f"{image.width}x{image.height} is too small (at least {MIN_SIDE} pixels each way)"
            if min(image.size) < MIN_SIDE
            else f"{image.width}x{image.height} is too long and thin"
        )
    return image if shrink == 1 else image.resize(size, Image.Resampling.BOX)


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does; its name says nothing."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _open_zip(path: Path) -> Zip:
    """The archive, if its directory is not too large to be read. Raises ValueError."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 66_000))
        tail = file.read()
    end = len(tail) - 22  # where it is without a comment, as zipfile sees it too
    if tail[end : end + 4] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        end = tail.rfind(b"PK\x05\x06")
    if end < 0:
        raise ValueError(NO_ARCHIVE)
    directory = int.from_bytes(tail[end + 12 : end + 16], "little")
    zip64 = b"PK\x06\x07" in tail[max(0, end - 20) : end]  # its directory is told elsewhere
    if zip64 or directory > MAX_DIRECTORY_BYTES:
        raise ValueError(TOO_MANY_ENTRIES)
    archive = Zip(path)
    try:
        archive.archive()
    except ValueError:  # it names the file as it is called here
        raise ValueError(NO_ARCHIVE) from None
    return archive


def _read_square(value: object, picture: Picture) -> tuple[int, int, int]:
    numbers = list(value) if isinstance(value, (list, tuple)) else []
    if len(numbers) != 3 or not all(type(n) in (int, float) and n == n for n in numbers):
        raise ValueError("A square has three numbers: left, top and side.")
    if any(abs(n) > 1e6 for n in numbers):
        raise ValueError("The square is not inside the picture.")
    left, top, side = (round(n) for n in numbers)
    if side < MIN_SIDE:
        raise ValueError(f"The square is too small; at least {MIN_SIDE} pixels of the picture.")
    if left < 0 or top < 0 or left + side > picture.width or top + side > picture.height:
        raise ValueError("The square is not inside the picture.")
    return left, top, side


def _shown(name: str) -> str:
    """A stranger's name for a file, fit to be shown on one line."""
    name = name.encode("utf-8", "replace").decode()  # lone surrogates cannot be shown
    name = "".join(c if c.isprintable() else "�" for c in name)
    return (name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…") or "unnamed"


def _pack(hash: np.ndarray) -> str:
    return np.packbits(hash > 0).tobytes().hex()


def _unpack(text: str) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))
    return np.where(bits, 1, -1).astype(np.int8)


def _read_contents(path: Path) -> _Contents:
    """What set.json says; nothing of it is believed if it is damaged."""
    try:
        values = json.loads(path.read_text())
        pictures = {}
        for item in values["pictures"].values():
            square = item.pop("square")
            picture = Picture(**item, square=None if square is None else tuple(square))
            pictures[picture.number] = picture
        left_out = [Skipped(**item) for item in values["left_out"]]
        return _Contents(pictures, left_out, values["more_left_out"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _Contents()


def _save_png(image: Image.Image, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    image.save(temporary, "PNG", compress_level=1)
    temporary.replace(path)


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
    temporary.replace(path)
