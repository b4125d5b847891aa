"""Requests that the pages of other sites send, with and without a proxy."""

from __future__ import annotations

import pytest
from guarded import ask

from studio.safety.origin import ELSEWHERE


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a script
        ({"origin": "http://cats.example:7860"}, 200),
        ({"origin": "HTTPS://CATS.example:7860"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://cats.example:7861"}, 403),
        ({"origin": "http://cats.example.evil.org:7860"}, 403),
        ({"origin": "null"}, 403),  # a sandboxed frame, a file
        ({"origin": "file://"}, 403),
        ({"origin": "https://public.example"}, 403),
        ({"origin": "https://evil.example", "x_forwarded_host": "evil.example"}, 403),
        ({"origin": "http://cats.example:7860", "sec_fetch_site": "cross-site"}, 403),
        ({"origin": "http://cats.example:7860", "sec_fetch_site": "same-origin"}, 200),
    ],
)  # fmt: skip
def test_pages_of_other_sites_change_nothing(headers, status):
    for method in ("POST", "DELETE", "PUT", "OPTIONS"):  # the last asks whether the others may
        got, sentence, _ = ask(method=method, **headers)
        assert got == status
        assert ("another site" in sentence) == (status == 403)
    assert ask(method="GET", **headers)[0] == 200  # a link from elsewhere is welcome


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "172.17.0.2", "192.168.1.9", "::1"])
def test_a_proxy_names_the_host(peer):
    """It sets the header, whatever a page had put into it."""
    headers = {"origin": "https://public.example", "x_forwarded_host": "public.example"}
    assert ask(peer=peer, **headers)[0] == 200
    assert ask(peer=peer, **{**headers, "origin": "https://evil.example"})[0] == 403
    assert ask(peer=peer, sec_fetch_site="cross-site", **headers)[0] == 403
    assert ask(peer="8.8.8.8", **headers)[0] == 403


def test_behind_any_proxy_a_current_browser_says_where_its_page_is_from():
    """nginx and Apache, as they come, put their own name into Host and add no header."""
    other = {"origin": "https://public.example"}
    assert ask(sec_fetch_site="same-origin", **other)[0] == 200
    for site in ("cross-site", "same-site"):
        assert ask(sec_fetch_site=site, origin="http://cats.example:7860")[0] == 403
    status, sentence, _ = ask(**other)
    assert (status, sentence) == (403, ELSEWHERE)
    assert "proxy" in sentence
