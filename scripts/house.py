"""The shape of the house in numbers: circles of imports and of C functions, longest functions and files, widest C.

    python scripts/house.py

Circles are sets of files that need each other; there should be none. Prints one row a figure. tests/test_house.py holds
them.
"""

from __future__ import annotations

import ast
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "compiler" / "tinytrain_compiler"
RUNTIME = ROOT / "runtime_c"

Edges = dict[str, set[str]]


# --- Python ----------------------------------------------------------------------------------------


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """Relative to the package: "ops.conv2d"; a folder's __init__ goes by the folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "__init__"


def imports(path: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """Modules of the package that a file imports, wherever in the file it does."""
    inside = path.relative_to(PACKAGE).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = inside[: len(inside) - node.level + 1]
            target = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            for alias in node.names:  # `from . import x` may name a module or something in the folder's __init__
                below = f"{target}.{alias.name}".strip(".")
                found = below if below in modules else target or "__init__"
                if found in modules:
                    yield found


def python_edges() -> Edges:
    """File -> files it imports. A folder's __init__ that passes names of its own files on is no edge back."""
    modules = {module_name(path): path for path in python_files()}
    return {name: set(imports(path, modules)) - {name} for name, path in modules.items()}


def longest_python_functions(count: int = 5) -> list[tuple[int, str]]:
    found = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                found.append(((node.end_lineno or 0) - node.lineno + 1, f"{module_name(path)}.{node.name}"))
    return sorted(found, reverse=True)[:count]


# --- C ---------------------------------------------------------------------------------------------

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)
_DEFINITION = re.compile(r"^(?!static|typedef|struct|#)[a-z][\w \*]*?\b(tt_\w+)\([^;{]*\)\n\{", re.M)


def c_edges() -> Edges:
    """Unit (tt_x.c with tt_x.h) -> units whose functions or types it names."""
    text: dict[str, str] = {}
    for path in sorted(RUNTIME.glob("*.[ch]")):
        text[path.stem] = text.get(path.stem, "") + _COMMENT.sub("", path.read_text())
    owner = {name: unit for unit, code in text.items() for name in _DEFINITION.findall(code)}
    return {
        unit: {owner[name] for name in re.findall(r"\btt_\w+", code) if name in owner}
        - {unit}  # the public header declares what the units define: naming is not needing
        for unit, code in text.items()
        if unit != "tinytrain"
    }


def longest_c_functions(files: Iterable[Path], count: int = 5) -> list[tuple[int, str]]:
    """Lines from the opening to the closing brace in column 0."""
    found = []
    for path in files:
        lines = path.read_text().splitlines()
        for start, line in enumerate(lines):
            if line == "{" and start:
                end = next(i for i in range(start, len(lines)) if lines[i].startswith("}"))
                name = re.search(r"(\w+)\(", " ".join(lines[max(0, start - 3) : start]))
                found.append((end - start + 1, f"{path.name}:{name.group(1) if name else start}"))
    return sorted(found, reverse=True)[:count]


# --- Both ------------------------------------------------------------------------------------------


def circles(edges: Edges) -> list[list[str]]:
    """Strongly connected sets of more than one file (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in sorted(edges.get(v, ())):
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            members = stack[stack.index(v) :]
            del stack[stack.index(v) :]
            if len(members) > 1:
                found.append(sorted(members))

    for v in sorted(edges):
        if v not in index:
            visit(v)
    return found


def by_folder(edges: Edges) -> Edges:
    """The same between folders; files beside the folders stand for themselves."""

    def folder(name: str) -> str:
        return name.split(".")[0]

    found: Edges = {}
    for source, targets in edges.items():
        found.setdefault(folder(source), set()).update(folder(t) for t in targets if folder(t) != folder(source))
    return found


def generated_c(directory: Path, policy: str = "tinytrain") -> list[Path]:
    """All C of the example backbone, compiled; the hand-written runtime that goes with it too."""
    from tinytrain_compiler import compile_model

    compile_model(ROOT / "examples" / "backbone" / "backbone64.onnx", "stm32f746", directory, policy=policy)
    return sorted(directory.rglob("*.[ch]"))


def widest(files: Iterable[Path]) -> tuple[int, str]:
    return max((len(line), f"{p.name}:{i}") for p in files for i, line in enumerate(p.read_text().splitlines(), 1))


def show(rows: Iterable[tuple[int, str]]) -> str:
    return "; ".join(f"{n} {where}" for n, where in rows)


def main() -> None:
    python, c = python_edges(), c_edges()
    print(f"circles of Python files      {len(circles(python))} {circles(python) or ''}")
    print(f"circles of Python folders    {len(circles(by_folder(python)))} {circles(by_folder(python)) or ''}")
    print(f"circles of runtime C units   {len(circles(c))} {circles(c) or ''}")
    print(f"longest Python functions     {show(longest_python_functions())}")
    sizes = sorted(((len(p.read_text().splitlines()), module_name(p)) for p in python_files()), reverse=True)
    print(f"Python files, largest        {len(sizes)}: {show(sizes[:5])}")
    print(f"longest C functions, runtime {show(longest_c_functions(sorted(RUNTIME.glob('*.[ch]'))))}")
    with tempfile.TemporaryDirectory() as folder:
        files = generated_c(Path(folder) / "net")
        print(f"widest line of generated C   {show([widest(files)])}")
        print(f"longest C functions, emitted {show(longest_c_functions(files))}")


if __name__ == "__main__":
    main()
