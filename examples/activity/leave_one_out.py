"""What training on the device adds for a person that the network has never seen, from the generated C.

    python examples/activity/leave_one_out.py PACK.npz NETWORKS [--policies P] [--shot N] [--queries N] [--epochs N]

NETWORKS: what train.py wrote, a network for each person of the pack. Each is compiled, calibrated on the others'
windows, shown a few of the person's own, and asked about further ones at least two windows away: windows overlap by
half. One episode a person, the same for all policies; intervals are over persons.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from tinytrain_compiler import compile_model
from tinytrain_compiler.compiled import load_compiled
from tinytrain_compiler.evaluate import evaluate, load_pack, policies_named, print_results, sample_episodes_by

GAP = 2  # places in the pack between windows that share no samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("networks", type=Path)
    parser.add_argument("--policies", default="none,last-layer,bias,tinytrain")
    parser.add_argument("--shot", type=int, default=5)
    parser.add_argument("--queries", type=int, default=15)
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    pack, policies = load_pack(args.pack), policies_named(args.policies.split(","))
    way = len(pack.class_names)
    episodes = sample_episodes_by(pack, "subject", way, args.shot, args.queries, gap=GAP)
    found: list[dict[str, Any]] = []
    for episode in sorted(episodes, key=lambda e: int(e.group or 0)):
        with tempfile.TemporaryDirectory() as folder:
            others = pack.values[pack.keys["subject"].astype(str) != episode.group]
            np.savez(f"{folder}/others.npz", signals=others.astype(np.float32))
            compile_model(
                args.networks / f"{episode.group}.onnx", "stm32f746", f"{folder}/move", name="move", classes=way,
                calibration=f"{folder}/others.npz",
            )  # fmt: skip
            model = load_compiled(f"{folder}/move")
            found.append(evaluate(model, pack, [episode], policies, epochs=args.epochs, network=True))
    print_results([together(found)], Console())


def together(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Results of one person each as one result, a person an episode."""
    policies = {
        name: {**entry, "per_episode": [each["policies"][name]["per_episode"][0] for each in found]}
        for name, entry in found[0]["policies"].items()
    }
    return {"pack": found[0]["pack"], "episodes": len(found), "policies": policies}


if __name__ == "__main__":
    main()
