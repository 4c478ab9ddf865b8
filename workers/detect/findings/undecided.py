"""The finding that headrace could not decide a signature, because a value was truncated or a name was not resolved.

It is part of every set of signatures, cannot be written in a file, and has no events of its own. The engine raises it
if a limit of headrace, and not the event, is the reason why a signature neither matches nor fails to.
"""

from __future__ import annotations

from headrace.config.rules import Rule

UNDECIDED = Rule(
    id="HR-UNDECIDED",
    name="undecided",
    title="A signature could not be decided",
    description="What these signatures look at was longer than headrace reads, changed while it was read, or could not "
    "be followed: whether they would have matched is not known.",
    severity="low",
)
MAX_NAMED = 16
"""Signatures that one finding names."""


def what(signatures: list[str], fields: list[str]) -> dict[str, object]:
    """The data of such a finding."""
    found: dict[str, object] = {"signatures": signatures[:MAX_NAMED], "fields": fields}
    return found | ({"more": len(signatures) - MAX_NAMED} if len(signatures) > MAX_NAMED else {})
