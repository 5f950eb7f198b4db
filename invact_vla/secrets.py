"""Addresses with a user and a password in them: used, but never shown or stored."""

import re

_CREDENTIALS = re.compile(r"(\b[a-zA-Z][\w+.-]*:/*)?[^\s/'\"]*:[^\s'\"]*@(?=[\w\[])")


def without_secrets(text: str) -> str:
    """A text without what stands before the @ of addresses, as in ws://user:password@host."""
    return _CREDENTIALS.sub(lambda match: match[1] or "", text)
