"""Few-shot accuracy of every policy on real backbones and packs: the tables of docs/results/accuracy.md.

    python benchmarks/accuracy.py MODELS DATA --results FILE.json [--policies P,P] [--backbones B,B] [--packs P,P]
        [--episodes N]

MODELS: a folder of ONNX backbones; DATA: packs (.npz), episodes.json. Runs the generated C on this machine. Every
policy sees the same backbone, quantised once, the same episodes, the same augmentation and the same number of
passes; rates were chosen on omniglot alone. Results are written after each pack, and what FILE holds already is not
run again; without --policies the tables of what is there are printed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinytrain_compiler.compile import compile_model
from tinytrain_compiler.compiled import CompiledModel, load_compiled
from tinytrain_compiler.evaluate import EPOCHS, LearnerOptions, evaluate, load_episodes, load_pack, policies_named
from tinytrain_compiler.evaluate.statistics import average, estimate
from tinytrain_compiler.training.formats import DEFAULT, GRADIENTS, ROUNDINGS
from tinytrain_compiler.training.policies import policies_with, policy_options
from tinytrain_compiler.training.policy import Policy
from tinytrain_compiler.training.selectors import SELECTORS

SCHEMES = Path(__file__).parents[1] / "examples" / "schemes"
CLASSES = 20
FIVE = ("gtsrb", "omniglot", "dtd10", "cifar10", "fashion_mnist")
BACKBONES = {  # model: (packs, episodes)
    "mcunet_5fps_128": (FIVE, 20),
    "mobilenetv2_w035_128": (FIVE[:3], 10),
    "proxylessnas_w03_128": (FIVE[:3], 10),
}
SCHEME_OF = {
    "mcunet_5fps_128": "mcunet_5fps_49kb.toml",
    "mobilenetv2_w035_128": "mobilenetv2_w035_49kb.toml",
    "proxylessnas_w03_128": "proxylessnas_w03_49kb.toml",
}
OPTIONS = [option.name for option in policy_options()]
SCHEMED = (*policies_with("scheme"), *SELECTORS)  # selectors stand for tinytrain

Results = dict[str, dict[str, dict[str, list[float]]]]  # backbone -> variant -> pack -> accuracy of each episode


def compiled(models: Path, data: Path, backbone: str, folder: Path) -> CompiledModel:
    calibration = data / "tinyimagenet64.npz"
    compile_model(models / f"{backbone}.onnx", "stm32f746", folder / backbone, calibration=calibration, classes=CLASSES,
                  name="net")  # fmt: skip
    return load_compiled(folder / backbone)


def options_of(backbone: str, variant: str) -> tuple[Policy, LearnerOptions]:
    """A variant is a policy, and after colons what differs from its defaults: sparse-update:gradients=float32."""
    name, *changes = variant.split(":")
    given: dict[str, Any] = {"scheme": SCHEMES / SCHEME_OF[backbone]} if name in SCHEMED else {}
    # A copy for each epoch is a fresh one each: what is kept saves time, and is too much for a board.
    values: dict[str, Any] = {"copies": EPOCHS}
    for change in changes:
        key, _, value = change.partition("=")
        if key in ("gradients", "rounding"):
            values["formats"] = replace(values.get("formats", DEFAULT), **{key: {**GRADIENTS, **ROUNDINGS}[value]})
        elif key in OPTIONS:
            given[key] = number(value)
        else:
            values[key] = number(value)
    return policies_named([name], given)[name], LearnerOptions(**values)


def number(text: str) -> int | float | str | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None if text == "none" else text


def run(args: argparse.Namespace, results: Results) -> None:
    with tempfile.TemporaryDirectory(prefix="accuracy-") as folder:
        for backbone in args.backbones:
            model = compiled(args.models, args.data, backbone, Path(folder))
            packs, count = BACKBONES[backbone]
            for variant in args.policies:
                for name in args.packs or packs:
                    known = results.setdefault(backbone, {}).setdefault(variant, {})
                    if len(known.get(name, ())) >= (args.episodes or count):
                        continue
                    pack = load_pack(args.data / f"{name}.npz")
                    episodes = load_episodes(args.data / "episodes.json", pack)
                    policy, options = options_of(backbone, variant)
                    found = evaluate(model, pack, episodes, {variant: policy}, count=args.episodes or count,
                                     epochs=EPOCHS, options=options, workers=args.jobs, emulation=False)  # fmt: skip
                    known[name] = found["policies"][variant]["per_episode"]
                    args.results.write_text(json.dumps(results))
                    print(f"{backbone} {variant} {name}: {estimate(known[name])}", flush=True)


def table(results: Results, backbone: str, packs: Sequence[str]) -> str:
    lines = [
        f"| {backbone} | " + " | ".join(packs) + " | mean | against sparse-update |",
        "|---" * (len(packs) + 3) + "|",
    ]
    reference = results[backbone].get("sparse-update", {})
    for variant, found in results[backbone].items():
        if not set(packs) <= set(found):
            continue
        cells = [f"{estimate(found[name])}" for name in packs]
        pairs = [[a - b for a, b in zip(found[name], reference.get(name, ()), strict=False)] for name in packs]
        against = f"{average(pairs):+}" if all(pairs) and variant != "sparse-update" else ""
        mean = average([found[name] for name in packs])
        lines.append(f"| {variant} | " + " | ".join(cells) + f" | {mean} | {against} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--policies", type=lambda text: text.split(","), default=[])
    parser.add_argument("--backbones", type=lambda text: text.split(","), default=list(BACKBONES))
    parser.add_argument("--packs", type=lambda text: text.split(","), help="others than a backbone's own")
    parser.add_argument("--episodes", type=int, help="of each pack (default: 20 for MCUNet, 10 for the others)")
    parser.add_argument("--jobs", type=int, default=1)
    args = parser.parse_args()
    results: Results = json.loads(args.results.read_text()) if args.results.exists() else {}
    run(args, results)
    for backbone in BACKBONES:
        if backbone in results:
            print(f"\n{table(results, backbone, args.packs or BACKBONES[backbone][0])}")


if __name__ == "__main__":
    main()
