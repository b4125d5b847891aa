"""Locks that end with their holder, and sentences for what a disk refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import threading

import pytest

from studio.disk import errors_as_sentences, hold, is_held, require_room, try_hold


def test_a_lock_excludes_other_threads_and_looking_does_not_take_it(tmp_path):
    path, order = tmp_path / "lock", []
    assert not is_held(path)

    def second():
        with hold(path):
            order.append("second")

    with hold(path):
        assert is_held(path)
        assert try_hold(path) is None
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert not is_held(path)
    lock = try_hold(path)
    assert is_held(path)
    os.close(lock)
    looks = [os.open(path, os.O_RDONLY) for _ in range(2)]
    assert not is_held(path)
    assert [os.close(look) for look in looks] == [None, None]


def test_a_child_that_inherits_a_lock_holds_it_until_it_is_killed(tmp_path):
    path = tmp_path / "lock"
    with hold(path) as lock:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(lock,))
    with hold(tmp_path / "other"), subprocess.Popen(["sleep", "60"]) as stranger:
        assert is_held(path)
        child.kill()
        child.wait()
        assert not is_held(path)
        stranger.kill()
    assert not is_held(tmp_path / "other")


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(errno.ENOSPC, "The disk is full"), (errno.EDQUOT, "The disk is full"),
     (errno.EROFS, "cannot be written to"), (errno.EACCES, "cannot be written to"),
     (errno.EPERM, "cannot be written to"), (errno.EIO, "cannot be used: no")],
)  # fmt: skip
def test_what_a_disk_refuses_is_a_sentence(number, sentence):
    with pytest.raises(ValueError, match=sentence), errors_as_sentences():
        raise OSError(number, "no")


def test_room_is_asked_for_where_a_folder_will_be(tmp_path):
    require_room(tmp_path / "not" / "yet", 1)
    with pytest.raises(ValueError, match=r"Only .* GB are free .* 1000000.0 GB have to stay free"):
        require_room(tmp_path / "not" / "yet", 10**15)
    assert not (tmp_path / "not").exists()
