"""One small change of a source at a time: an operator, a constant, a sign, a `not`, or a statement that is left out.

Sources are Python, Cython and CUDA C++, and the C that Cython files bring along; all are in tokens, so that comments,
strings, declarations and prefetches stay what they are. Our sources are formatted: an operator with a space on both
sides takes two operands, and is neither part of a type nor the sign of a number.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

SWAPS = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "+": "-", "-": "+", "*": "/", "/": "*",
    "//": "*", "%": "*", "&": "|", "|": "&", "^": "|", "<<": ">>", ">>": "<<", "&&": "||", "||": "&&",
    "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "//=": "*=", "|=": "&=", "&=": "|=", "<<=": ">>=", ">>=": "<<=",
}  # fmt: skip
NAMES = {
    "and": "or", "or": "and", "True": "False", "False": "True", "true": "false", "false": "true", "break": "continue",
    "continue": "break",
}  # fmt: skip
CALLS = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum"}
NUMBER = r"(?:0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][+-]?\d+)?)\w*"
OPERATORS = r"\*\*=?|//=?|<<=?|>>=?|&&|\|\||->|\+\+|--|[-+*/%&|^<>=!:]=|[^\w\s]"
PYTHON = re.compile(
    r"(?P<comment>#[^\n]*)|(?P<string>[rbfu]{0,2}(?:\"\"\"(?s:.*?)\"\"\"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'))"
    r"|(?P<cast><(?:const |unsigned |long )*\w+[ *]*>)"
    rf"|(?P<number>{NUMBER})|(?P<name>[^\W\d]\w*)|(?P<operator>{OPERATORS})|(?P<line>\n)",
    re.IGNORECASE,
)
C = re.compile(
    r"(?P<comment>//[^\n]*|/\*(?s:.*?)\*/|^[ ]*\#(?:[^\n]*\\\n)*[^\n]*)|(?P<string>\"(?:\\.|[^\"\\\n])*\")"
    rf"|(?P<number>{NUMBER})|(?P<name>[^\W\d]\w*)|(?P<operator>{OPERATORS})",
    re.MULTILINE,
)
# With what a logical line begins that is no statement, or one that a change of a word covers.
NO_STATEMENT = set(
    "if elif else for while with try except finally def cdef cpdef ctypedef class pass global nonlocal import "
    "cimport from include break continue @".split()
)
# They change no result.
PREFETCHES = ("prefetch", "prefetch_far", "prefetch_lines", "fetch_weight")
BLOCKS = re.compile(r"\s*(cdef enum|cpdef enum|cdef struct|cdef extern|ctypedef)\b")


class Mutant(NamedTuple):
    """Put `new` in the place of `old`, which begins at `start` of a file's text."""

    path: str
    start: int
    old: str
    new: str
    line: int
    column: int

    @property
    def name(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {shown(self.old)} -> {shown(self.new)}"

    def applied(self, text: str) -> str:
        assert text[self.start :].startswith(self.old), f"{self.name}: the source has changed"
        return text[: self.start] + self.new + text[self.start + len(self.old) :]


class Token(NamedTuple):
    kind: str
    text: str
    start: int

    @property
    def stop(self) -> int:
        return self.start + len(self.text)


def shown(text: str) -> str:
    return " ".join(text.split())


def mutants(path: str, text: str) -> list[Mutant]:
    """All changes of a source, as it is on disk; which language it is in, its name says."""
    kind = path.rpartition(".")[2]
    changes = {"cu": _of_c, "py": _of_python}.get(kind, _of_cython)(text)
    found = []
    for start, old, new in sorted(changes):
        before = text[:start]
        line, column = before.count("\n") + 1, start - before.rfind("\n")
        found.append(Mutant(path, start, old, new, line, column))
    return found


def _tokens(pattern: re.Pattern, text: str) -> list[Token]:
    return [Token(x.lastgroup or "", x[0], x.start()) for x in pattern.finditer(text)]


def _changes(text: str, tokens: list[Token]) -> Iterator[tuple[int, str, str]]:
    """Those of single tokens."""
    tokens = [x for x in tokens if x.kind not in ("comment", "line")]
    for k, (kind, old, start) in enumerate(tokens):
        before = tokens[k - 1].text if k else ""
        after = tokens[k + 1].text if k + 1 < len(tokens) else ""
        if kind == "operator" and text[start - 1].isspace() and text[start + len(old)].isspace():
            if old in SWAPS:
                yield start, old, SWAPS[old]
        elif kind == "operator" and old == "-" and re.fullmatch(r"[(\[,=:?]|[^\w\s]=|return|[-+*/<>]", before):
            yield start, old, ""  # a sign
        elif kind == "operator" and old == "!":
            yield start, old, ""
        elif kind == "number":
            yield start, old, _other_number(old)
        elif kind == "name" and old == "not" and before == "is":
            yield start, "not ", ""
        elif kind == "name" and old == "not":
            yield start, "not ", ""
        elif kind == "name" and old == "is" and after != "not":
            yield start, old, "is not"
        elif kind == "name" and old in NAMES:
            yield start, old, NAMES[old]
        elif kind == "name" and old in CALLS and after == "(":
            yield start, old, CALLS[old]


def _other_number(old: str) -> str:
    if found := re.fullmatch(r"([01])(\.0*f?|u|ull)?", old, re.IGNORECASE):
        return f"{1 - int(found[1])}{found[2] or ''}"
    return str(int(old) + 1) if old.isdigit() else f"(1 + {old})"


def _of_python(text: str) -> Iterator[tuple[int, str, str]]:
    lines = [0]
    for line in text.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def place(node: ast.AST) -> tuple[int, int]:
        def at(line: int, column: int) -> int:  # columns are counted in bytes
            return lines[line - 1] + len(text[lines[line - 1] : lines[line]].encode()[:column].decode())

        return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)

    left_alone: list[tuple[int, int]] = []
    again = _set_again(tree := ast.parse(text))
    statements: list[tuple[int, int]] = []
    for node in ast.walk(tree):
        declared = [getattr(node, "annotation", None), getattr(node, "returns", None)]
        declared += getattr(node, "decorator_list", [])
        left_alone += [place(x) for x in declared if x is not None]
        if isinstance(node, ast.Import | ast.ImportFrom):
            left_alone.append(place(node))
        if isinstance(node, ast.FunctionDef):
            inside = [x for x in ast.walk(node) if isinstance(x, ast.stmt)]
            simple = (ast.Assign, ast.AugAssign, ast.Return, ast.Raise, ast.Delete, ast.Expr)
            for x in inside:
                is_text = isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant)
                if isinstance(x, simple) and not is_text and not (isinstance(x, ast.Assign) and x not in again):
                    statements.append(place(x))
    tokens = [x for x in _tokens(PYTHON, text) if not any(a <= x.start < b for a, b in left_alone)]
    yield from _changes(text, tokens)
    for a, b in set(statements):
        yield a, text[a:b], "pass"


def _set_again(tree: ast.AST) -> set[ast.stmt]:
    """Assignments to what has another value without them, too: without others there is an error."""
    again: set[ast.stmt] = set()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = [x.arg for x in ast.walk(function.args) if isinstance(x, ast.arg)]
        nodes = list(ast.walk(function))
        names += [x.id for x in nodes if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)]
        for node in nodes:
            if isinstance(node, ast.Assign):
                own = [x for target in node.targets for x in ast.walk(target) if isinstance(x, ast.expr)]
                if all(names.count(x.id) > 1 for x in own if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)):
                    again.add(node)
    return again


def _of_cython(text: str) -> Iterator[tuple[int, str, str]]:
    tokens, line, depth = _tokens(PYTHON, text), [], 0
    block: int | None = None  # how far a block of declarations is indented
    for token in tokens:
        if token.kind == "string" and '"""' in token.text and text[: token.start].rstrip().endswith("extern from *:"):
            yield from ((token.start + a, old, new) for a, old, new in _of_c(token.text))
        depth += (token.text in "([{") - (token.text in ")]}") if token.kind == "operator" else 0
        if token.kind != "line":
            line += [token] if token.kind != "comment" else []
        elif depth == 0 and line:
            start, stop = line[0].start, line[-1].stop
            indent = start - text.rfind("\n", 0, start) - 1
            if block is not None and indent <= block:
                block = None
            if (
                block is None
                and BLOCKS.match(text[start:stop])
                and (line[-1].text == ":" or "fused" in text[start:stop])
            ):
                block = indent
            elif block is None:
                yield from _of_line(text, line, indent)
            line = []


def _of_line(text: str, line: list[Token], indent: int) -> Iterator[tuple[int, str, str]]:
    first = line[0].text
    if first in ("import", "cimport", "from", "include", "ctypedef", "global", "class", "@", "def"):
        return
    if first in PREFETCHES:
        return
    if first in ("cdef", "cpdef"):  # what a variable begins with
        if line[-1].text == ":" or not any(x.text == "=" for x in line) or "nogil" in (x.text for x in line):
            return
        line = line[next(k for k, x in enumerate(line) if x.text == "=") :]
    yield from _changes(text, line)
    if indent and first not in NO_STATEMENT and line[0].kind not in ("string", "operator"):
        yield line[0].start, text[line[0].start : line[-1].stop], "pass"


def _of_c(text: str) -> Iterator[tuple[int, str, str]]:
    tokens = [x for x in _tokens(C, text) if x.kind != "comment"]
    declared = [x.span() for x in re.finditer(r"\benum\b[^;{]*\{[^}]*\}|\btemplate <[^\n]*|\balignas\(\d+\)", text)]
    yield from _changes(text, [x for x in tokens if not any(a <= x.start < b for a, b in declared)])
    statement, depth = [], 0
    for token in tokens:
        depth += (token.text in "([") - (token.text in ")]") if token.kind == "operator" else 0
        if depth == 0 and token.text in ("{", "}") and token.kind == "operator":
            statement = []
        elif depth == 0 and token.text == ";":
            yield from _left_out(text, statement)
            statement = []
        else:
            statement.append(token)


def _left_out(text: str, statement: list[Token]) -> Iterator[tuple[int, str, str]]:
    """A statement of C without what it does: an assignment or a call, behind conditions and heads of loops."""
    while statement and statement[0].text in ("if", "else", "for", "while"):
        k, depth = 1, 0
        if statement[0].text != "else":
            while k < len(statement) and (k == 1 or depth):
                depth += (statement[k].text in "([") - (statement[k].text in ")]")
                k += 1
        statement = statement[k:]
    if not statement or statement[0].kind != "name":
        return
    start, whole = statement[0].start, text[statement[0].start : statement[-1].stop]
    if re.match(r"[\w.\[\]()>-]+(\[[^=]*\])? ([-+*/|&]|<<|>>)?= |[\w.]+\([^\n]*\)$|return\b", whole):
        yield start, whole, "return {}" if statement[0].text == "return" else ""
