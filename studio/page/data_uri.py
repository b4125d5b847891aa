"""Small files inside a page: no further requests."""

from __future__ import annotations

import base64


def data_uri(data: bytes, media_type: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
