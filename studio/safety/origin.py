"""Whether the page of another site sent a request: one check for the page and the owner's routes.

A current browser says so itself, in a header that no page can forge (Sec-Fetch-Site), so this
holds behind any proxy. An older one, and every browser over plain http to another machine, sends
only Origin; it must then be the host that was asked for. A proxy may have put its own name in that
place: one on a private address is believed when it says what the browser asked for. (No page of
another site can send X-Forwarded-Host: its browser would have to ask us first, and is refused.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .client import is_near

ELSEWHERE = (
    "This request comes from the page of another site. If it does not, the proxy in front of this "
    "page has to pass the Host header on."
)


def is_from_elsewhere(scope: Mapping[str, Any], headers: Mapping[str, bytes]) -> bool:
    """``headers``: by lower-case name. A script, which sends neither header, is welcome."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    if "origin" not in headers:
        return False
    names = ("host", "x-forwarded-host") if is_near(scope) else ("host",)
    hosts = {headers[name].decode("latin1").strip().lower() for name in names if name in headers}
    try:
        origin = urlsplit(headers["origin"].decode("latin1")).netloc.lower()
    except ValueError:  # an address in brackets that is none
        return True
    return origin not in hosts - {""}  # "null" has none
