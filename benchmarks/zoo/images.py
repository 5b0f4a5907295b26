"""Networks for images and spectrograms, after their papers, written small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .catalogue import CLASSES

Activation = Callable[[], nn.Module]


def conv(
    cin: int, cout: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: Activation | None = nn.ReLU
) -> nn.Sequential:
    """Convolution, batch normalisation and, unless None, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class Sum(nn.Module):
    """The sum of several branches of one input, then an activation."""

    def __init__(self, *branches: nn.Module, act: Activation = nn.ReLU) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        return self.act(total)


class Concat(nn.Module):
    """Several branches of one input, joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class SqueezeExcite(nn.Module):
    """Hu et al. 2018: channels weighted by what is in all of them."""

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, channels // ratio), nn.ReLU(), nn.Linear(channels // ratio, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.layers(x.mean((2, 3)))[:, :, None, None]


def classifier(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)]


def basic(cin: int, cout: int, stride: int = 1, *, attention: bool = False) -> nn.Module:
    """The block of ResNet-18, with squeeze-and-excite if `attention`."""
    branch = [conv(cin, cout, 3, stride), conv(cout, cout, act=None), *([SqueezeExcite(cout)] if attention else [])]
    short = nn.Identity() if (cin, stride) == (cout, 1) else conv(cin, cout, 1, stride, act=None)
    return Sum(nn.Sequential(*branch), short)


def mobilenetv1(width: int = 8) -> nn.Module:
    layers, channels = [conv(3, width, 3, 2)], width
    for factor, stride in ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), (16, 1), (16, 1), (32, 2), (32, 1)):
        layers += [conv(channels, channels, 3, stride, channels), conv(channels, factor * width, 1)]
        channels = factor * width
    return nn.Sequential(*layers, *classifier(channels))


def resnet8() -> nn.Module:
    return nn.Sequential(conv(3, 16), basic(16, 16), basic(16, 32, 2), basic(32, 64, 2), *classifier(64))


def se_resnet() -> nn.Module:
    blocks = [basic(16, 16, attention=True), basic(16, 32, 2, attention=True), basic(32, 64, 2, attention=True)]
    return nn.Sequential(conv(3, 16, 3, 2), *blocks, *classifier(64))


def regnetx(width: int = 8) -> nn.Module:
    """Bottlenecks whose 3x3 convolution is in groups of 8 channels."""

    def block(cin: int, cout: int, stride: int) -> nn.Module:
        branch = nn.Sequential(
            conv(cin, cout, 1), conv(cout, cout, 3, stride, cout // width), conv(cout, cout, 1, act=None)
        )
        short = nn.Identity() if (cin, stride) == (cout, 1) else conv(cin, cout, 1, stride, act=None)
        return Sum(branch, short)

    sizes = [(16, 24, 2), (24, 24, 1), (24, 56, 2), (56, 56, 1), (56, 96, 2), (96, 96, 1)]
    return nn.Sequential(conv(3, 16, 3, 2), *(block(*size) for size in sizes), *classifier(96))


def repvgg() -> nn.Module:
    """As it is trained: 3x3, 1x1 and the input itself side by side."""

    def block(cin: int, cout: int, stride: int = 1) -> nn.Module:
        branches = [conv(cin, cout, 3, stride, act=None), conv(cin, cout, 1, stride, act=None)]
        return Sum(*branches, *([nn.BatchNorm2d(cin)] if (cin, stride) == (cout, 1) else []))

    sizes = [(3, 16, 2), (16, 16), (16, 32, 2), (32, 32), (32, 64, 2), (64, 64)]
    return nn.Sequential(*(block(*size) for size in sizes), *classifier(64))


def mobileone() -> nn.Module:
    """As it is trained: several depthwise and several pointwise convolutions side by side."""

    def block(cin: int, cout: int, stride: int) -> nn.Sequential:
        depthwise = [conv(cin, cin, 3, stride, cin, act=None) for _ in range(3)] + [
            conv(cin, cin, 1, stride, cin, act=None)
        ]
        pointwise = [conv(cin, cout, 1, act=None) for _ in range(3)]
        same = [nn.BatchNorm2d(cin)] if stride == 1 else []
        more = [nn.BatchNorm2d(cin)] if cin == cout else []
        return nn.Sequential(Sum(*depthwise, *same), Sum(*pointwise, *more))

    sizes = [(16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2)]
    return nn.Sequential(conv(3, 16, 3, 2), *(block(*size) for size in sizes), *classifier(128))


def vgg_small() -> nn.Module:
    layers: list[nn.Module] = []
    for cin, cout in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(cin, cout, 3, padding=1), nn.ReLU(), nn.Conv2d(cout, cout, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, CLASSES)]
    return nn.Sequential(*layers, *head)


def googlenet() -> nn.Module:
    def inception(cin: int, *sizes: int) -> tuple[nn.Module, int]:
        a, b_in, b, c_in, c, d = sizes
        pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(cin, d, 1))
        joined = Concat(
            conv(cin, a, 1),
            nn.Sequential(conv(cin, b_in, 1), conv(b_in, b)),
            nn.Sequential(conv(cin, c_in, 1), conv(c_in, c, 5)),
            pool,
        )
        return joined, a + b + c + d

    first, c1 = inception(24, 8, 8, 16, 4, 8, 8)
    second, c2 = inception(c1, 16, 16, 24, 4, 8, 8)
    third, c3 = inception(c2, 24, 16, 32, 8, 16, 16)
    down = nn.MaxPool2d(3, 2, ceil_mode=True)
    return nn.Sequential(
        conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True), conv(16, 24), first, second, down, third, *classifier(c3)
    )


class UNet(nn.Module):
    """Ronneberger et al. 2015: transposed convolutions up, and what was seen on the way down beside them."""

    def __init__(self, width: int = 8, depth: int = 3) -> None:
        super().__init__()
        sizes = [width * 2**i for i in range(depth + 1)]
        self.stem = conv(3, width)
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), conv(a, b), conv(b, b)) for a, b in pairwise(sizes))
        pairs = list(zip(sizes[::-1], sizes[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
        self.join = nn.ModuleList(conv(2 * b, b) for _, b in pairs)
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.stem(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        y = levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            y = join(torch.cat([levels.pop(), up(y)], 1))
        return self.last(y)


unet = UNet


class CSPBlock(nn.Module):
    """YOLOv8's: halves of the channels, one of which goes through bottlenecks, all of them joined."""

    def __init__(self, cin: int, cout: int, repeats: int = 1) -> None:
        super().__init__()
        self.first, self.last = conv(cin, cout, 1, act=nn.SiLU), conv((2 + repeats) * cout // 2, cout, 1, act=nn.SiLU)
        half = cout // 2
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(half, half, act=nn.SiLU), conv(half, half, act=nn.SiLU)) for _ in range(repeats)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class CSPDetector(nn.Module):
    """A backbone with a spatial pyramid, a neck that goes up once, and one map of boxes and classes."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.low = nn.Sequential(
            conv(3, width, 3, 2, act=nn.SiLU),
            conv(width, 2 * width, 3, 2, act=nn.SiLU),
            CSPBlock(2 * width, 2 * width),
            conv(2 * width, 4 * width, 3, 2, act=nn.SiLU),
            CSPBlock(4 * width, 4 * width, 2),
        )
        self.high = nn.Sequential(conv(4 * width, 8 * width, 3, 2, act=nn.SiLU), CSPBlock(8 * width, 8 * width))
        self.squeeze = conv(8 * width, 4 * width, 1, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.expand = conv(16 * width, 8 * width, 1, act=nn.SiLU)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.neck = CSPBlock(12 * width, 4 * width)
        self.head = nn.Conv2d(4 * width, 4 + CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(x)
        pooled = [self.squeeze(self.high(low))]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        high = self.expand(torch.cat(pooled, 1))
        return self.head(self.neck(torch.cat([self.up(high), low], 1)))


csp_detector = CSPDetector


class HarDBlock(nn.Module):
    """Chao et al. 2019: layer i reads the layers i - 1, i - 2, i - 4, ... that a power of two divides."""

    def __init__(self, cin: int, growth: int, layers: int) -> None:
        super().__init__()
        self.links = [[i - 2**p for p in range(10) if i % 2**p == 0 and i - 2**p >= 0] for i in range(1, layers + 1)]
        sizes = [cin] + [growth * (1 if i % 2 else 2) for i in range(1, layers + 1)]
        self.layers = nn.ModuleList(
            conv(sum(sizes[j] for j in links), size) for links, size in zip(self.links, sizes[1:], strict=True)
        )
        self.kept = [i for i in range(1, layers + 1) if i % 2 or i == layers]
        self.channels = sum(sizes[i] for i in self.kept)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for links, layer in zip(self.links, self.layers, strict=True):
            outputs.append(layer(torch.cat([outputs[j] for j in links], 1) if len(links) > 1 else outputs[links[0]]))
        return torch.cat([outputs[i] for i in self.kept], 1)


def hardnet() -> nn.Module:
    layers, channels = [conv(3, 16, 3, 2), conv(16, 24)], 24
    for growth, out in ((8, 32), (12, 64)):
        block = HarDBlock(channels, growth, 4)
        layers += [nn.MaxPool2d(2), block, conv(block.channels, out, 1)]
        channels = out
    return nn.Sequential(*layers, *classifier(channels))


def ds_cnn(width: int = 32) -> nn.Module:
    """Keyword spotting on 49 x 10 MFCCs (Zhang et al. 2017)."""
    stem = [nn.Conv2d(1, width, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(width), nn.ReLU()]
    blocks = [layer for _ in range(4) for layer in (conv(width, width, 3, 1, width), conv(width, width, 1))]
    return nn.Sequential(*stem, *blocks, nn.AvgPool2d((25, 5)), nn.Flatten(), nn.Linear(width, CLASSES))


def conv_autoencoder(sizes: Sequence[int] = (8, 16, 4)) -> nn.Module:
    """A picture through a bottleneck and back, with transposed convolutions."""
    a, b, c = sizes
    down = [conv(1, a, 3, 2), conv(a, b, 3, 2), conv(b, c, 1)]
    up = [
        nn.ConvTranspose2d(c, b, 3, 2, 1, output_padding=1),
        nn.BatchNorm2d(b),
        nn.ReLU(),
        nn.ConvTranspose2d(b, 1, 4, 2, 1),
        nn.Sigmoid(),
    ]
    return nn.Sequential(*down, *up)
