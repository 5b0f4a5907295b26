"""Cut the power at every point of many saves, and look at what is loaded afterwards.

    python benchmarks/power_cuts.py [--cycles N] [--program-bytes N] [--policy POLICY] [--compiler CC]

Compiles the example network, and tests/c/power_cuts.c around it with a flash that can be torn: at every byte of every
program call and every eighth of every erase, leaving bytes untouched, half done, flickering, or unreadable.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from tinytrain_compiler import compile_model
from tinytrain_compiler.projects.description import model_sources
from tinytrain_compiler.targets.host import WARNINGS

ROOT = Path(__file__).resolve().parents[1]
BACKBONE = ROOT / "examples" / "backbone" / "backbone64.onnx"
TESTS = ROOT / "tests" / "c"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--program-bytes", type=int, default=4, help="what the flash programs at once")
    parser.add_argument("--policy", default="none")
    parser.add_argument("--compiler", default="cc")
    args = parser.parse_args()
    if args.cycles < 2:
        parser.error("--cycles: at least 2, for the first save has no older state to fall back to")
    with tempfile.TemporaryDirectory() as folder:
        model, program = Path(folder) / "model", Path(folder) / "power_cuts"
        compiled = compile_model(BACKBONE, "stm32f746", model, name="net", classes=10, policy=args.policy)
        sources = [model / source for source in model_sources("net", args.policy != "none")]
        sources += [*sorted((model / "runtime").glob("*.c")), TESTS / "power_cuts.c"]
        includes = [f"-I{path}" for path in (model, model / "runtime", TESTS)]
        command = [args.compiler, "-std=c11", "-O2", *WARNINGS, *includes, *map(str, sources), "-lm", "-o"]
        subprocess.run([*command, str(program)], check=True)
        print(
            f"{BACKBONE.name}, policy {args.policy}, 10 classes: {compiled.report['storage']['state_bytes']:,} bytes a "
            f"slot, {args.cycles} saves, {args.program_bytes} bytes programmed at once",
            flush=True,
        )
        subprocess.run([str(program), str(args.cycles), str(args.program_bytes), "1"], check=True)


if __name__ == "__main__":
    main()
