"""Names of files and labels, as they are compared."""

import unicodedata


def composed(name: str) -> str:
    """The name with one code point a letter: macOS takes "é" apart, and others may not."""
    return unicodedata.normalize("NFC", name)
