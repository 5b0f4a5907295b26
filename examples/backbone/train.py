"""Train the example backbone: a small MobileNetV2-style network for 64x64 RGB images.

    pip install torch pillow onnx numpy
    python examples/backbone/train.py PACK.npz -o examples/backbone/backbone64.onnx

PACK.npz holds JPEG images and their classes: ``jpeg`` (uint8, all files end to end), ``offsets``
(N+1, where each file begins) and ``labels`` (N). The committed model was trained on 50,000
images of 200 ImageNet classes at 32x32 (the training split of Tiny ImageNet, reduced).

The network is plain: Conv-BatchNorm-ReLU6, inverted residuals (Sandler et al., CVPR 2018),
global average pooling, one Gemm. BatchNorm is folded at export. The 160 pooled features in front
of the Gemm are the embedding that few-shot learning uses.
"""

from __future__ import annotations

import argparse
import io
import itertools
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE = 64  # pixels a side, as deployed
FEATURES = 160
# expansion, output channels, repeats, stride of the first repeat
BLOCKS = [(1, 16, 1, 1), (4, 24, 2, 2), (4, 40, 3, 2), (4, 64, 2, 1), (4, 80, 2, 2)]


def conv_bn(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout),
    ]
    if act:
        layers.append(nn.ReLU6())
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1; a shortcut where shapes allow."""

    def __init__(self, cin: int, cout: int, expansion: int, stride: int) -> None:
        super().__init__()
        mid = cin * expansion
        layers = [conv_bn(cin, mid, 1)] if expansion != 1 else []
        layers += [conv_bn(mid, mid, 3, stride, groups=mid), conv_bn(mid, cout, 1, act=False)]
        self.body = nn.Sequential(*layers)
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


class Backbone(nn.Module):
    """(N, 3, 64, 64) in [-1, 1] -> (N, classes) logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_bn(3, 16, 3, 2)]
        cin = 16
        for expansion, cout, repeats, stride in BLOCKS:
            for i in range(repeats):
                layers.append(InvertedResidual(cin, cout, expansion, stride if i == 0 else 1))
                cin = cout
        layers.append(conv_bn(cin, FEATURES, 1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return self.classifier(x)


def load_pack(path: Path) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) uint8 and labels (N,) int64."""
    from PIL import Image

    pack = np.load(path, allow_pickle=False)
    jpeg, offsets = pack["jpeg"], pack["offsets"]
    images = np.stack(
        [np.asarray(Image.open(io.BytesIO(jpeg[a:b].tobytes())).convert("RGB")) for a, b in itertools.pairwise(offsets)]
    )
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(pack["labels"].astype(np.int64))


def augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """uint8 (N, 3, 32, 32) -> float [-1, 1] (N, 3, 64, 64): zoom, shift, flip, colour, grey, negative, cut-out."""
    n = len(x)
    x = x.float() / 127.5 - 1

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(n, *shape).uniform_(low, high, generator=rng)

    theta = torch.zeros(n, 2, 3)
    zoom, stretch = uniform(0.7, 1.1), uniform(0.9, 1.1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    shear = uniform(-0.15, 0.15, 2)
    theta[:, 0, 0], theta[:, 1, 1] = zoom * stretch * flip, zoom / stretch
    theta[:, 0, 1], theta[:, 1, 0] = shear[:, 0], shear[:, 1]
    theta[:, :, 2] = uniform(-0.25, 0.25, 2)
    grid = F.affine_grid(theta, [n, 3, IMAGE, IMAGE], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    grey = x.mean(1, keepdim=True)
    saturation = torch.where(uniform(0, 1) < 0.25, 0.0, uniform(0.6, 1.4)).view(n, 1, 1, 1)
    x = grey + (x - grey) * saturation
    x = x * uniform(0.7, 1.3).view(n, 1, 1, 1) + uniform(-0.2, 0.2).view(n, 1, 1, 1)
    x = x * torch.where(uniform(0, 1) < 0.15, -1.0, 1.0).view(n, 1, 1, 1)  # negatives: ink on paper, chalk on board
    size = IMAGE // 3
    cy, cx = (torch.randint(0, IMAGE - size, (n,), generator=rng) for _ in range(2))
    rows = torch.arange(IMAGE)
    inside_y = (rows >= cy[:, None]) & (rows < cy[:, None] + size)
    inside_x = (rows >= cx[:, None]) & (rows < cx[:, None] + size)
    hole = inside_y[:, None, :, None] & inside_x[:, None, None, :] & (uniform(0, 1) < 0.5).view(n, 1, 1, 1)
    return x.masked_fill(hole, 0.0).clamp_(-1, 1)


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    correct = 0
    with torch.inference_mode():
        for i in range(0, len(images), 250):
            x = F.interpolate(images[i : i + 250].float() / 127.5 - 1, size=IMAGE, mode="bilinear")
            correct += int(
                (model(x.contiguous(memory_format=torch.channels_last)).argmax(1) == labels[i : i + 250]).sum()
            )
    return correct / len(images)


def train(args: argparse.Namespace) -> Backbone:
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    images, labels = load_pack(args.pack)
    order = torch.randperm(len(images), generator=rng)
    held_out, train_set = order[:2000], order[2000:]
    model = Backbone(int(labels.max()) + 1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(train_set):,} images", flush=True)
    steps = args.epochs * (len(train_set) // args.batch)
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decay, "weight_decay": 1e-4}, {"params": plain, "weight_decay": 0.0}],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=args.lr, total_steps=steps, pct_start=0.1)
    start = time.time()
    for epoch in range(args.epochs):
        model.train()
        epoch_order = train_set[torch.randperm(len(train_set), generator=rng)]
        total = 0.0
        for step in range(len(train_set) // args.batch):
            chosen = epoch_order[step * args.batch : (step + 1) * args.batch]
            x = augment(images[chosen], rng).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(x), labels[chosen], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        accuracy = evaluate(model, images[held_out], labels[held_out])
        mean = total / (step + 1)
        print(
            f"epoch {epoch + 1:3d}  loss {mean:.3f}  held-out {accuracy:.3f}  {time.time() - start:.0f} s", flush=True
        )
        if args.checkpoint:
            torch.save(model.state_dict(), args.checkpoint)
    return model


def export(model: Backbone, path: Path) -> None:
    """Fold BatchNorm into the convolutions and write float ONNX, opset 17, batch 1."""
    model.eval()
    for block in [m for m in model.modules() if isinstance(m, nn.Sequential) and isinstance(m[0], nn.Conv2d)]:
        block[0] = nn.utils.fusion.fuse_conv_bn_eval(block[0], block[1])
        block[1] = nn.Identity()
    torch.onnx.export(
        model.to(memory_format=torch.contiguous_format),  # type: ignore[call-overload]
        (torch.zeros(1, 3, IMAGE, IMAGE),),
        str(path),
        opset_version=17,
        input_names=["image"],
        output_names=["logits"],
        dynamo=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pack", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("backbone64.onnx"))
    parser.add_argument("--epochs", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="save the weights here after every epoch")
    args = parser.parse_args()
    export(train(args), args.output)


if __name__ == "__main__":
    main()
