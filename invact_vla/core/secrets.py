"""Addresses with a user and a password in them: used, but never shown or stored."""

import re

_CREDENTIALS = re.compile(r"([a-zA-Z][\w+.-]*://|\bwss?:/?)\S*@")


def without_secrets(text: str) -> str:
    """A text without what stands before the @ of URLs, as in ws://user:password@host."""
    return _CREDENTIALS.sub(r"\1", text)
