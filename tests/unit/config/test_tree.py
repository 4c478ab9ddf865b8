"""Boolean trees: a simplified tree has the verdict of the one that it was made of, for every verdict of its leaves."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from headrace.config.tree import (
    FALSE,
    TRUE,
    And,
    Certain,
    Not,
    Or,
    Tree,
    conjunction,
    leaves,
    mapped,
    simplified,
    verdict,
)
from tests.unit.trees import trees

VERDICTS = (False, None, True)
LEAVES = (0, 1, 2)
TREES = trees(st.sampled_from(LEAVES))


@given(TREES)
def test_a_simplified_tree_has_the_same_verdicts(tree: Tree[int]) -> None:
    short = simplified(tree)
    assert simplified(short) == short
    for found in product(VERDICTS, repeat=len(LEAVES)):
        assert verdict(short, found.__getitem__) is verdict(tree, found.__getitem__)


@given(TREES)
def test_a_tree_can_be_given_other_leaves(tree: Tree[int]) -> None:
    assert list(leaves(mapped(tree, lambda leaf: leaf + 10))) == [leaf + 10 for leaf in leaves(tree)]
    assert mapped(mapped(tree, str), int) == tree


def test_verdicts_are_three_valued() -> None:
    of = {0: False, 1: None, 2: True}.__getitem__
    assert [verdict(And((a, b)), of) for a, b in ((2, 2), (2, 1), (1, 0))] == [True, None, False]
    assert [verdict(Or((a, b)), of) for a, b in ((0, 0), (0, 1), (1, 2))] == [False, None, True]
    assert [verdict(Not(leaf), of) for leaf in LEAVES] == [True, None, False]
    assert [verdict(Certain(leaf), of) for leaf in LEAVES] == [False, False, True]
    assert (verdict(TRUE, of), verdict(FALSE, of)) == (True, False)


def test_a_conjunction_of_one_is_that_one() -> None:
    assert conjunction(TRUE, 1, TRUE) == 1
    assert conjunction() == TRUE
    assert conjunction(1, 2) == And((1, 2))
