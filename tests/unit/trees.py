"""Boolean trees for property tests (config/tree.py)."""

from __future__ import annotations

from typing import TypeVar

from hypothesis import strategies as st

from headrace.config.tree import And, Certain, Not, Or, Tree

L = TypeVar("L")


def trees(leaf: st.SearchStrategy[L], max_leaves: int = 8) -> st.SearchStrategy[Tree[L]]:
    """Trees of these leaves, with every kind of node."""
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(Not, inner),
            st.builds(Certain, inner),
            st.lists(inner, max_size=3).map(lambda parts: And(tuple(parts))),
            st.lists(inner, max_size=3).map(lambda parts: Or(tuple(parts))),
        ),
        max_leaves=max_leaves,
    )
