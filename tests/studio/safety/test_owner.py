"""The owner's password and sessions, on a clock that the tests turn."""

from __future__ import annotations

import pytest
from helpers import Clock

from studio.safety import owner as owner_module
from studio.safety.owner import (
    COOKIE,
    IDLE_SECONDS,
    LOOK_SECONDS,
    LOOKS,
    MAX_SESSIONS,
    SESSION_SECONDS,
    NotOwner,
    Owner,
    TooEarly,
)

PASSWORD = "a long password ✓"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def owner(clock) -> Owner:
    return Owner(PASSWORD, clock=clock)


def test_the_password_opens_a_session_and_sign_out_ends_it(owner):
    first, second = owner.sign_in(PASSWORD), owner.sign_in(PASSWORD)
    assert first != second
    assert len(first) >= 40
    assert owner.check(first)
    owner.demand({COOKIE: first})
    owner.sign_out(first)
    owner.sign_out("nobody's")
    owner.sign_out(None)
    assert not owner.check(first)
    assert owner.check(second)


@pytest.mark.parametrize("token", ["", None, "x", "x" * 43, "\udc80", "a" * 100_000])
def test_forged_tokens_open_nothing(owner, token):
    owner.sign_in(PASSWORD)
    assert not owner.check(token)
    with pytest.raises(NotOwner, match="Sign in first"):
        owner.demand({COOKIE: token} if token else {})


def test_no_token_is_kept(owner):
    token = owner.sign_in(PASSWORD)
    assert token not in repr(vars(owner))
    assert PASSWORD not in repr(vars(owner))


@pytest.mark.parametrize(
    "wrong", ["", "a long password", PASSWORD + " ", None, 12, [], "\udc80", "x" * 10**6]
)
def test_anything_else_is_wrong(owner, wrong):
    with pytest.raises(NotOwner, match="The password is wrong"):
        owner.sign_in(wrong)


@pytest.mark.parametrize("password", ["", "short", "elevenchars"])
def test_without_a_good_password_all_is_off(password):
    owner = Owner(password)
    assert not owner.enabled
    for attempt in (password, "", None):
        with pytest.raises(NotOwner, match="ADMIN_PASSWORD"):
            owner.sign_in(attempt)
    with pytest.raises(NotOwner, match="ADMIN_PASSWORD"):
        owner.demand({COOKIE: "x"})
    assert not owner.check("x")
    assert Owner("twelve chars").enabled


def test_the_password_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("ADMIN_PASSWORD", PASSWORD)
    assert Owner.from_environment().sign_in(PASSWORD)
    monkeypatch.delenv("ADMIN_PASSWORD")
    assert not Owner.from_environment().enabled


def test_a_session_ends_when_idle_and_at_last_in_any_case(owner, clock):
    token = owner.sign_in(PASSWORD)
    clock.now += IDLE_SECONDS - 1
    assert owner.check(token)
    clock.now += IDLE_SECONDS
    assert not owner.check(token)
    token = owner.sign_in(PASSWORD)
    began = clock.now
    while clock.now + 3600 < began + SESSION_SECONDS:
        clock.now += 3600
        assert owner.check(token)
    clock.now = began + SESSION_SECONDS
    assert not owner.check(token)


def test_only_so_many_sessions_live(owner):
    tokens = [owner.sign_in(PASSWORD) for _ in range(MAX_SESSIONS + 1)]
    assert not owner.check(tokens[0])
    assert all(owner.check(token) for token in tokens[1:])


def test_the_delay_doubles_up_to_half_a_minute(owner, clock):
    for delay in (0.5, 1, 2, 4, 8, 16, 30, 30, 30):
        with pytest.raises(NotOwner, match="The password is wrong"):
            owner.sign_in("wrong")
        clock.now += delay * 0.99
        with pytest.raises(TooEarly, match="Try again in"):
            owner.sign_in(PASSWORD)  # not even looked at
        clock.now += delay * 0.01 + 1e-6
    owner.sign_in(PASSWORD)
    with pytest.raises(NotOwner):
        owner.sign_in("wrong")
    clock.now += 0.5  # the count began anew
    owner.sign_in(PASSWORD)


def test_a_hundred_tries_in_a_minute_are_mostly_unread(owner, clock):
    read = 0
    for _ in range(100):
        clock.now += 0.6
        try:
            owner.sign_in("wrong")
        except TooEarly:
            continue
        except NotOwner:
            read += 1
    assert read <= 7


def test_a_wrong_try_signs_nobody_out(owner):
    token = owner.sign_in(PASSWORD)
    with pytest.raises(NotOwner):
        owner.sign_in("wrong")
    assert owner.check(token)


def test_one_who_guesses_keeps_nobody_else_out(owner, clock):
    """Four guesses a second from one address, as once kept the owner out nearly always."""
    let_in = 0
    for second in range(60):
        for _ in range(4):
            clock.now += 0.25
            with pytest.raises((NotOwner, TooEarly)):
                owner.sign_in("wrong", "1.2.3.4")
        let_in += bool(owner.sign_in(PASSWORD, f"10.0.0.{second % 3}"))
    assert let_in == 60


def test_many_addresses_together_have_so_many_looks(owner, clock):
    owner.sign_in(PASSWORD, "at home")
    read = 0
    for number in range(6000):  # a hundred a second, each from an address of its own
        clock.now += 0.01
        try:
            owner.sign_in("wrong", f"guesser {number}")
        except TooEarly:
            continue
        except NotOwner:
            read += 1
    assert read <= LOOKS
    with pytest.raises(TooEarly, match="the log names"):
        owner.sign_in(PASSWORD, "somewhere new")
    assert owner.sign_in(PASSWORD, "at home")  # an address that the owner came from before
    clock.now += LOOK_SECONDS
    assert owner.sign_in(PASSWORD, "somewhere new")


def test_the_spare_password_opens_once_at_any_time(owner, clock):
    spare = owner.spare()
    for number in range(200):
        with pytest.raises((NotOwner, TooEarly)):
            owner.sign_in("wrong", f"guesser {number}")
    for _ in range(3):
        with pytest.raises((NotOwner, TooEarly)):
            owner.sign_in("wrong", "mine")
    token = owner.sign_in(spare, "mine")
    assert owner.check(token)
    with pytest.raises(TooEarly):
        owner.sign_in(spare, "mine")  # looked at no more than any other
    clock.now += 3600
    with pytest.raises(NotOwner):
        owner.sign_in(spare, "mine")
    assert spare not in repr(vars(owner))
    older, newer = owner.spare(), owner.spare()
    clock.now += 3600
    with pytest.raises(NotOwner):
        owner.sign_in(older)
    assert owner.sign_in(newer)


def test_there_is_no_spare_for_a_door_that_is_off():
    owner = Owner("")
    with pytest.raises(NotOwner, match="ADMIN_PASSWORD"):
        owner.sign_in(owner.spare())


def test_the_memory_for_guessers_is_bounded(owner, clock, monkeypatch):
    monkeypatch.setattr(owner_module, "MAX_CLIENTS", 50)
    for number in range(500):
        clock.now += 2
        with pytest.raises(NotOwner):
            owner.sign_in("wrong", f"guesser {number}")
    assert len(owner._guessers) <= 50
