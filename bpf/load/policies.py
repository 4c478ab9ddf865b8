"""The maps of policies (bpf/c/maps.h): which events they ask for, and which thread groups their trees contain."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import numpy as np

from headrace.bpf import layout, syscall


class PolicyMaps:
    """The maps of loaded programs. Masks have a bit for each policy."""

    def __init__(self, maps: Mapping[str, syscall.Map], groups_changed: Callable[[], None]) -> None:
        """`groups_changed` makes the programs look groups up again."""
        self._maps, self._changed = maps, groups_changed

    def ask(self, masks: Mapping[int, int]) -> None:
        """Set which policies ask for each event, by event id."""
        for event in range(layout.EVENTS):
            self._maps["policy_events"][event] = masks.get(event, 0)

    def enter(self, tgid: int, trees: int, excluded: int) -> None:
        """Enter a thread group: the policies whose trees contain it, and those whose excluded trees do."""
        self._maps["policy_groups"][tgid] = np.array([trees, excluded, 0], "<u8").tobytes()
        self._changed()

    def groups(self) -> dict[int, tuple[int, int]]:
        """The thread groups, with the masks of enter()."""
        entries = {key: np.frombuffer(value, "<u8").tolist() for key, value in self._maps["policy_groups"].items()}
        return {key: (trees, excluded) for key, (trees, excluded, _) in entries.items()}

    def forget(self, tgid: int) -> None:
        """Remove a thread group if it is there."""
        with contextlib.suppress(KeyError):
            del self._maps["policy_groups"][tgid]
        self._changed()
