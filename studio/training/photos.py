"""Pictures that the owner uploads, on their way to a training: stored, looked at, cropped, chosen.

A set is a folder ``data/uploads/ID``:

    incoming/TIME-N.bin     what arrived and has not been looked at, with .name, what it was called,
                            and .begun, how often it was begun
    pictures/0001.png       what a picture became: upright RGB, shorter side at most 640, ours
    set.json                what is known of each picture, and why files were left out

The names that files came with are shown and never used as names of files here. What arrives is
looked at in one thread, in the order of arrival; the page asks how far that is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
import traceback
from collections.abc import Iterable, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from diffusion.config import MAX_PICTURES
from diffusion.data.copies import MIN_SIDE, find_copies, look_of, require_enough
from diffusion.data.decoding import in_decoder
from diffusion.data.images import decode_photo, fit_square
from diffusion.data.sources import Skipped
from diffusion.files import atomic_path

from ..disk import errors_as_sentences, require_room
from .arrivals import MAX_ARCHIVE_BYTES, Incoming, files_in, shown, size_of
from .set_file import Picture, pack, read_contents, read_square, unpack

MAX_INCOMING_BYTES = 4_000_000_000  # that wait to be looked at, in one set
MIN_FREE_BYTES = 1_000_000_000  # no upload is taken below
STORED_SIDE = 640  # of a stored picture's shorter side: room to crop, small enough to keep
LONGEST_SIDE = 4 * STORED_SIDE
SQUARE_SIDE = 512  # what a training is given at most
CAPTIONS = {".txt", ".caption", ".json", ".xmp", ".xml", ".aae"}  # what lies beside photos
SAVE_SECONDS = 1.0  # between saves while many pictures are looked at
MAX_BEGUN = 3  # times that a file is begun: one that ends the server each time is left out then


class NoSuchSet(ValueError):
    """A set or picture that is not here (any more)."""


@dataclass(frozen=True)
class SetView:
    """How a set stands."""

    id: str
    pictures: tuple[Picture, ...]  # those that can be trained on, in the order of their numbers
    copies: tuple[tuple[Picture, Picture], ...]  # those left out for an earlier one, and that one
    left_out: tuple[Skipped, ...]  # and why, the copies too
    more_left_out: int  # files left out beyond those that are listed
    waiting: int  # files that have arrived and are not yet looked at
    captions: int  # text files that came beside a photo and bear its name; no use is made of them

    @property
    def chosen(self) -> list[Picture]:
        """Pictures that a training would get."""
        return [picture for picture in self.pictures if not picture.removed]


class PictureSet:
    """One set; see the head of this file. All methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.id, self.folder = folder.name, folder
        self._lock = threading.RLock()
        self._looking = threading.Lock()  # one thread looks, or a file would be taken in twice
        self._arrivals = 0
        self._contents = read_contents(folder)
        self._compared: tuple[tuple[Picture, ...], tuple[tuple[Picture, Picture], ...]] = (), ()
        for part in (folder / "incoming").glob("*.part"):  # that a server which was killed left
            part.unlink(missing_ok=True)

    # -- what arrives ---------------------------------------------------------------------------

    def receive(self, name: str, *, num_bytes: int = 0) -> Incoming:
        """A place for one file that is about to arrive, said to have so many bytes.

        Raises ValueError, or OSError from the disk.
        """
        if num_bytes > MAX_ARCHIVE_BYTES:
            raise ValueError(f"A file may have at most {MAX_ARCHIVE_BYTES // 1_000_000} MB.")
        require_room(self.folder, MIN_FREE_BYTES + num_bytes)
        with self._lock:
            if sum(map(size_of, self._waiting())) > MAX_INCOMING_BYTES:
                raise ValueError("Too many files are waiting to be checked. Try again in a minute.")
            self._arrivals += 1
            stem = f"{time.time_ns():020d}-{self._arrivals:08d}"
        return Incoming(self.folder / "incoming" / stem, shown(name))

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
                    again = self._begin(path)
                    for label, found in files_in(path, name):
                        if again and self._knows(label, found):
                            continue
                        if isinstance(found, str):
                            self._leave_out(label, found)
                        else:
                            self._take(label, found)
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

    def _begin(self, path: Path) -> bool:
        """Note that a file is begun, before anything is done with it; whether it was before, by a
        server that ended meanwhile. Raises ValueError if that came too often."""
        note = path.with_suffix(".begun")
        times = size_of(note)
        if times >= MAX_BEGUN:
            raise ValueError(f"the page ended {times} times while it was being looked at")
        with note.open("ab") as file:
            file.write(b".")
        return times > 0

    def _knows(self, name: str, found: bytes | str) -> bool:
        """Whether a file of an archive that is read again is on record already."""
        contents = self._contents
        if isinstance(found, str):
            return Skipped(name, found) in contents.left_out
        digest = hashlib.sha256(found).hexdigest()
        taken = any((p.name, p.digest) == (name, digest) for p in contents.pictures.values())
        return taken or any(skipped.name == name for skipped in contents.left_out)

    def _done_with(self, paths: list[Path]) -> None:
        """Put on record that files were looked at, and forget them; on a full disk only that."""
        if not paths:
            return
        with contextlib.suppress(OSError):
            self._save()
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                for ending in (".name", ".begun"):
                    path.with_suffix(ending).unlink(missing_ok=True)
        paths.clear()

    def _take(self, name: str, data: bytes) -> None:
        """Decode a picture and store it, or note why not."""
        digest = hashlib.sha256(data).hexdigest()
        try:
            self._require_new(digest)
            if data.startswith(b"PK\x03\x04"):
                raise ValueError("a zip inside a zip, which is not opened")
            image = in_decoder(lambda: small_enough(decode_photo(data)))
        except ValueError as error:
            self._leave_out(name, str(error))
            return
        picture = Picture(
            number=0,
            name=name,
            width=image.width,
            height=image.height,
            digest=digest,
            look=pack(look_of(image)),
        )
        with self._lock:
            number = max(self._contents.pictures, default=0) + 1
            require_room(self.folder, MIN_FREE_BYTES)
            with atomic_path(self.path(number)) as temporary:
                image.save(temporary, "PNG", compress_level=1)
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
        copies = self._copies(pictures)
        names = {_without_ending(picture.name) for picture in pictures}
        others = [s for s in left_out if not _is_caption(s.name, names)]
        captions = len(left_out) - len(others)
        left_out = others + [Skipped(a.name, f"near-duplicate of {b.name}") for a, b in copies]
        twice = {picture.number for picture, _ in copies}
        kept = tuple(picture for picture in pictures if picture.number not in twice)
        return SetView(self.id, kept, copies, tuple(left_out), more, waiting, captions)

    def _copies(self, pictures: list[Picture]) -> tuple[tuple[Picture, Picture], ...]:
        """Pictures that repeat an earlier one, and that one; looked for anew after changes only."""
        # A removed picture stands in no other's way: of two alike, the better one may be chosen.
        chosen = tuple(picture for picture in pictures if not picture.removed)
        known, copies = self._compared
        if chosen != known:
            looks = [unpack(picture.look) for picture in chosen]
            found = find_copies(looks, [picture.kept for picture in chosen])
            copies = tuple((chosen[i], chosen[j]) for i, j in found.items())
            self._compared = chosen, copies
        return copies

    def crop(self, number: int, square: object) -> Picture:
        """Let the network see the square (left, top, side), in pixels of the stored picture; None
        means the centre. Raises ValueError for a square that is not inside or too small."""
        picture = self.picture(number)
        if square is not None:
            square = read_square(square, picture)
        seen = self._square(replace(picture, square=square))
        return self._change(number, square=square, look=pack(look_of(seen)))

    def remove(self, number: int) -> Picture:
        """Leave a picture out of the training."""
        return self._change(number, removed=True)

    def put_back(self, number: int) -> Picture:
        """Take a removed picture in again."""
        return self._change(number, removed=False)

    def keep_both(self, number: int) -> Picture:
        """Take in a picture that was left out as a copy of another, and keep that one too."""
        return self._change(number, kept=True)

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
        return fit_square(self._square(self.picture(number)), size)

    def _square(self, picture: Picture) -> Image.Image:
        return self.open(picture.number).crop(picture.box)

    def squares(self, folder: Path) -> list[Path]:
        """Write the chosen squares as PNG files of at most 512 pixels; returns their paths.

        Raises ValueError if there are too few, or if something has not been looked at yet.
        """
        view = self.scan()
        if view.waiting:
            raise ValueError("The photos are still being checked. Start when that is done.")
        require_enough(len(view.chosen), "There are", what="photos")
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for picture in view.chosen:
            square = self._square(picture)
            square = fit_square(square, min(square.width, SQUARE_SIDE))
            paths.append(folder / f"{picture.number:04d}.png")
            square.save(paths[-1], "PNG", compress_level=1)
        return paths

    # -- what these share -----------------------------------------------------------------------

    def _waiting(self) -> list[Path]:
        return sorted((self.folder / "incoming").glob("*.bin"))

    def _change(self, number: int, **changes: Any) -> Picture:
        with self._lock:  # what another device changes meanwhile must not be undone
            picture = replace(self.picture(number), **changes)
            self._contents.pictures[number] = picture
            self._save()
        return picture

    def _leave_out(self, name: str, reason: str) -> None:
        with self._lock:
            self._contents.leave_out(name, reason)

    def _save(self) -> None:
        with self._lock:
            text = json.dumps(asdict(self._contents), ensure_ascii=True)
            with atomic_path(self.folder / "set.json") as temporary:
                temporary.write_text(text)


# -- helpers ----------------------------------------------------------------------------------


def _is_caption(name: str, photos: Set[Path]) -> bool:
    """Whether a file is text beside one of ``photos`` (names without their endings)."""
    beside = _without_ending(name)
    names = {beside, _without_ending(beside)}
    return Path(name).suffix.lower() in CAPTIONS and bool(names & photos)


def _without_ending(name: str | Path) -> Path:
    """A shown name, which may be that of no file, without its ending."""
    path = Path(name)
    return path.with_suffix("") if path.name else path


def small_enough(image: Image.Image) -> Image.Image:
    """A picture made small enough to keep. Raises ValueError if too little is left of it."""
    shrink = min(1, STORED_SIDE / min(image.size), LONGEST_SIDE / max(image.size))
    size = (round(image.width * shrink), round(image.height * shrink))
    if min(size) < MIN_SIDE:
        raise ValueError(
            f"{image.width}x{image.height} is too small (at least {MIN_SIDE} pixels each way)"
            if min(image.size) < MIN_SIDE
            else f"{image.width}x{image.height} is too long and narrow"
        )
    return image if shrink == 1 else image.resize(size, Image.Resampling.BOX)
