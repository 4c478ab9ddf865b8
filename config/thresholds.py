"""Thresholds of signatures: so many matches within some time are one finding (pipeline/thresholds.py counts them)."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Threshold(msgspec.Struct, frozen=True):
    """So many matches within some time are one finding; those of which the fields in `by` are the same count."""

    count: Annotated[int, msgspec.Meta(ge=2, le=10_000)]
    within: Annotated[float, msgspec.Meta(gt=0, le=86_400)]
    """Seconds."""
    by: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """In words."""
        same = f", the same in {', '.join(self.by)}" if self.by else ""
        return f"{self.count} matches within {self.within:g} s{same}, make one finding"

    @property
    def within_ms(self) -> int:
        """`within` in milliseconds."""
        return max(1, round(self.within * 1000))


def threshold_of(given: object) -> Threshold:
    """A threshold as a rule has it: {count, within, by}. ValueError."""
    try:
        for key in given if isinstance(given, dict) else ():
            if key not in ("count", "within", "by"):
                raise ValueError(f"threshold: count, within (seconds) and by (a list of fields), not {key}")
        return msgspec.convert(given, Threshold)
    except msgspec.ValidationError as error:
        raise ValueError(f"threshold: {error}") from error
