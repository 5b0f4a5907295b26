"""docs/reference/, printed from the code that each page is about, so that page and code cannot differ.

    python scripts/reference.py            write the pages
    python scripts/reference.py --check    exit 1 and name the pages that are not as the code has them

tests/test_reference_pages.py runs the check.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from tinytrain_compiler.boards.page import page as boards_page
from tinytrain_compiler.cli.program import tinytrain
from tinytrain_compiler.frontends.onnx.support import support_table
from tinytrain_compiler.report.schema import json_schema
from tinytrain_compiler.training.heads import HEADS
from tinytrain_compiler.training.option import options_of
from tinytrain_compiler.training.policies import POLICIES
from tinytrain_compiler.training.selectors import SELECTORS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"
WRITTEN_BY = "*This page is printed by `python scripts/reference.py`; change {source} instead.*"


# --- The command line --------------------------------------------------------------------------------


def cli_page() -> str:
    """Every command with its options, as --help says it."""
    parts = [
        "# Command line",
        WRITTEN_BY.format(source="the help texts in `cli/`"),
        "`tinytrain-compile` is the same as `tinytrain compile`. Exit codes: 0 done, 1 an error of ours, 2 usage or "
        "unsupported model, 3 does not fit the board, 130 interrupted. `--json` prints one JSON document on stdout, "
        "also for an error.",
    ]
    parent = click.Context(tinytrain, info_name="tinytrain", **tinytrain.context_settings)
    for name in sorted(tinytrain.commands):
        command = tinytrain.commands[name]
        context = click.Context(command, parent, name, terminal_width=100, max_content_width=100)
        parts += [f"## tinytrain {name}", f"```text\n{command.get_help(context)}\n```"]
    return "\n\n".join(parts) + "\n"


# --- Operators ---------------------------------------------------------------------------------------


def operators_page() -> str:
    """What `tinytrain ops` lists."""
    rows = [f"| `{op}` | {cell(text)} |" for op, text in support_table()]
    head = ["# Operators", "", WRITTEN_BY.format(source="the support rules in `frontends/onnx/`"), ""]
    head += ["ONNX operators that compile, and their limits: what `tinytrain ops` prints. A model with any other node",
             "is refused with every offending node, the reason, and what to do.", ""]  # fmt: skip
    return "\n".join([*head, "| operator | what is supported |", "|---|---|", *rows, ""])


# --- Policies, selectors and heads -------------------------------------------------------------------


def policies_page() -> str:
    """The registries, a row a record."""
    policies = []
    for name, policy in POLICIES.items():
        flags = ", ".join(f"`{option.flag}`" for option in options_of(policy).values()) or "none"
        policies.append(f"| `{name}` | {policy.summary()} | {policy.rate:g} | {flags} |")
    options = {o.name: o for policy in POLICIES.values() for o in options_of(policy).values()}
    rows = [f"| `--{o.name} {o.metavar}` | {cell(o.help)} |" for o in options.values()]
    selectors = [f"| `{name}` | {selector.summary} |" for name, selector in SELECTORS.items()]
    heads = [f"| `{name}` | {head.summary()} | {head.score} |" for name, head in HEADS.items()]
    return "\n".join([
        "# Policies and heads", "", WRITTEN_BY.format(source="the records in `training/`"), "",
        "## Policies", "",
        "| `--policy` | what is trained | learning rate | options |", "|---|---|---|---|", *policies, "",
        "| option | meaning |", "|---|---|", *rows, "",
        "## Selectors", "", "How a policy with `--selection` chooses channels on the device.", "",
        "| `--selection` | how |", "|---|---|", *selectors, "",
        "## Heads", "", "| `--head` | what classifies | `result.score` |", "|---|---|---|", *heads, "",
    ])  # fmt: skip


# --- report.json -------------------------------------------------------------------------------------


def report_page() -> str:
    """A section a record, a row a key."""
    schema = json_schema()
    own = {key: schema[key] for key in ("description", "properties")}
    parts = [
        "# report.json",
        WRITTEN_BY.format(source="`report/schema.py`"),
        "`tinytrain-compile --json` prints it, and every compiled folder holds it. `tinytrain report-schema` prints "
        "this page as a JSON schema.",
    ]
    for name, record in [("Report", own), *_in_order(own, schema["$defs"])]:
        rows = [f"| `{key}` | {_type(value)} | {cell(value.get('description', ''))} |"
                for key, value in record["properties"].items()]  # fmt: skip
        head = [f"## {name}", "", record["description"], "", "| key | type | meaning |", "|---|---|---|"]
        parts.append("\n".join([*head, *rows]))
    return "\n\n".join(parts) + "\n"


def _in_order(record: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records in the order in which a reader meets them, each once."""
    seen: set[str] = set()

    def below(properties: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for name in re.findall(r"#/\$defs/(\w+)", repr(list(properties.values()))):
            if name not in seen:
                seen.add(name)
                yield name, definitions[name]
                yield from below(definitions[name].get("properties", {}))

    return ((name, found) for name, found in below(record["properties"]) if "properties" in found)


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].split("/")[-1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(_type(one) for one in value["anyOf"])
    if "enum" in value:
        return " or ".join(f"`{one}`" for one in value["enum"])
    if value.get("type") == "array":
        return f"list of {_type(value['items'])}"
    if isinstance(value.get("additionalProperties"), dict):
        return f"{_type(value['additionalProperties'])} by name"
    return str(value.get("type", "any"))


# --- The C API ---------------------------------------------------------------------------------------

HEADERS = ("tinytrain.h", "tinytrain_training.h", "tinytrain_storage.h", "tt_audio.h")


def c_api_page() -> str:
    """The public headers, section by section."""
    parts = [
        "# C API",
        WRITTEN_BY.format(source="the headers in `runtime_c/`"),
        "An application calls the functions of its model, `<name>_infer()` and so on in `<name>.h`. They wrap these, "
        "with the session's and the arena's types and sizes filled in. One thread at a time may use a session.",
    ]
    for header in HEADERS:
        text = (ROOT / "runtime_c" / header).read_text()
        parts.append(f"## {header}")
        for title, code in _sections(text):
            parts.append(f"### {title}\n\n```c\n{code.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """(title, declarations) between banners; include guards and linkage left out."""
    pieces = re.split(r"/\* --- (.+?) -+ ?\*/\n", text)
    if len(pieces) == 1:
        body = re.split(r"extern \"C\" \{\n#endif\n", text)[-1]
        pieces = ["", "Declarations", body]
    for title, code in zip(pieces[1::2], pieces[2::2], strict=True):
        code = re.sub(r"#ifdef __cplusplus\n.*?#endif\n", "", code, flags=re.S)
        yield title, re.sub(r"\n#endif\s*$", "", code)


# --- All of them -------------------------------------------------------------------------------------


def cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


ALL: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "operators.md": operators_page,
    "boards.md": boards_page,
    "policies.md": policies_page,
    "report.md": report_page,
    "c-api.md": c_api_page,
}


def main(arguments: list[str]) -> int:
    pages = {PAGES / name: make() for name, make in ALL.items()}
    if arguments == ["--check"]:
        stale = [path.name for path, text in pages.items() if not path.exists() or path.read_text() != text]
        if stale:
            print(f"docs/reference/: {', '.join(stale)} not as the code has it; run python scripts/reference.py")
        return bool(stale)
    PAGES.mkdir(parents=True, exist_ok=True)
    for path, text in pages.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
