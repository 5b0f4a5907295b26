"""Train one small network for each person of a pack on all the others: what a new user's device starts from.

    python examples/activity/train.py PACK.npz -o NETWORKS

PACK.npz holds `signals` (n, channels, steps), `labels` and `subject`, such as windows of UCI HAR. NETWORKS/2.onnx has
never seen person 2. Needs PyTorch: pip install '.[train]'. leave_one_out.py measures what training on the device adds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

EPOCHS, BATCH, RATE = 30, 64, 2e-3


def network(channels: int, classes: int) -> nn.Sequential:
    """Convolutions along time, written as images of height 1; 64 features."""
    layers: list[nn.Module] = []
    for inside, outside, stride in ((channels, 32, 1), (32, 48, 2), (48, 64, 2), (64, 64, 2)):
        layers += [nn.Conv2d(inside, outside, (1, 5), (1, stride), (0, 2)), nn.BatchNorm2d(outside), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(64, classes))


def train(signals: torch.Tensor, labels: torch.Tensor, classes: int) -> nn.Sequential:
    """signals: float (n, channels, 1, steps)."""
    torch.manual_seed(0)
    model = network(signals.shape[1], classes)
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=1e-2)
    steps = EPOCHS * -(-len(signals) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(signals)).split(BATCH):
            shift = int(torch.randint(-16, 17, ()))
            loss = nn.functional.cross_entropy(model(signals[chosen].roll(shift, -1)), labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(args.pack) as pack:
        signals = torch.from_numpy(pack["signals"].astype(np.float32))[:, :, None]
        labels, subject = torch.from_numpy(pack["labels"].astype(np.int64)), pack["subject"]
    args.output.mkdir(parents=True, exist_ok=True)
    for person in np.unique(subject):
        others = torch.from_numpy(subject != person)
        model = train(signals[others], labels[others], int(labels.max()) + 1)
        with torch.no_grad():
            right = (model(signals[~others]).argmax(1) == labels[~others]).float().mean()
        print(f"person {person}: {100 * right:.1f} % of {int((~others).sum())} windows before training on the device")
        file = args.output / f"{person}.onnx"
        torch.onnx.export(model, (signals[:1],), str(file), input_names=["signals"], opset_version=17, dynamo=False)


if __name__ == "__main__":
    main()
