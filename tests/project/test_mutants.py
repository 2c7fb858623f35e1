"""tests/stress/mutants.py: which changes it makes of a source, and that reasons why some have no effect are of use."""

import re
import sys
from pathlib import Path

import pytest

STRESS = Path(__file__).parents[1] / "stress"
ROOT = STRESS.parents[1]
sys.path.append(str(STRESS))

from argued import ARGUED, argument  # noqa: E402
from mutants import mutants  # noqa: E402

PYTHON = '''
"""1 + 1"""
from x import y

def f(a: int | None = None, *b) -> 1:  # 2 + 2
    """3 + 3"""
    a = a + b[1:] if a is not None and (-a) < 4.5 else "5 + 5"
    for x in max(a, b):
        if not x:
            break
    return a**2
'''
CYTHON = '''
from x cimport y

cdef extern from *:
    """
    #define ONE (1 + 1)
    static inline int one(int* a) { a[0] = *a << 2; return !*a; }
    """
    int one "one"(int*) noexcept nogil

cdef enum:
    GRAIN = 1 << 14

cdef inline bint f(const long* x, int size = 2) noexcept nogil:
    cdef const long *y = <const long*> x
    cdef long k, sum = size - 1
    prefetch(&x[7], 0)
    sum += <long> x[k] * 3
    return (
        sum == 0
    )
'''
CUDA = """
// 1 + 1
template <class N, int WAY>
__device__ bool f(const N *x, N* y) {
  enum { A = 1 };
  N a = x[5] && !y;
  for (int i = 2; i < a; ++i) y[i] += -a;
  return a > 3;
}
"""


def changes(name, text):
    return {(x.line, x.old, x.new) for x in mutants(name, text)}


def test_what_is_changed_in_python():
    sum = 'a = a + b[1:] if a is not None and (-a) < 4.5 else "5 + 5"'
    assert changes("x.py", PYTHON) == {
        (7, sum, "pass"), (7, "+", "-"), (7, "1", "0"), (7, "not ", ""), (7, "and", "or"), (7, "-", ""),
        (7, "<", "<="), (7, "4.5", "(1 + 4.5)"), (8, "max", "min"), (9, "not ", ""), (10, "break", "continue"),
        (11, "return a**2", "pass"), (11, "2", "3"),
    }  # fmt: skip


def test_what_is_changed_in_cython():
    assert changes("x.pyx", CYTHON) == {
        (7, "a[0] = *a << 2", ""), (7, "0", "1"), (7, "<<", ">>"), (7, "2", "3"), (7, "return !*a", "return {}"),
        (7, "!", ""), (16, "-", "+"), (16, "1", "0"), (18, "sum += <long> x[k] * 3", "pass"), (18, "+=", "-="),
        (18, "*", "/"), (18, "3", "4"), (19, "return (\n        sum == 0\n    )", "pass"), (20, "==", "!="),
        (20, "0", "1"),
    }  # fmt: skip


def test_what_is_changed_in_cuda():
    assert changes("x.cu", CUDA) == {
        (6, "5", "6"), (6, "&&", "||"), (6, "!", ""), (7, "2", "3"), (7, "<", "<="), (7, "y[i] += -a", ""),
        (7, "+=", "-="), (7, "-", ""), (8, "return a > 3", "return {}"), (8, ">", ">="), (8, "3", "4"),
    }  # fmt: skip


def test_a_change_is_made_where_it_says():
    found = next(x for x in mutants("x.py", PYTHON) if x.old == "and")
    assert found.applied(PYTHON) == PYTHON.replace("and", "or")
    assert found.name == "x.py:7:36: and -> or"


@pytest.mark.skipif(not (ROOT / "src").exists(), reason="sources are not part of an installed package")
@pytest.mark.parametrize("known", ARGUED, ids=lambda known: f"{Path(known.path).name}: {known.line}")
def test_a_reason_is_one_for_some_change(known):
    text = (ROOT / known.path).read_text("utf-8")
    lines = text.splitlines()
    assert len([line for line in lines if re.search(known.line, line)]) == 1
    assert known.why in {argument(x, lines[x.line - 1]) for x in mutants(known.path, text)}
