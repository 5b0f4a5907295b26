"""Networks for vectors, and for signals over time, (channels, length) or (time, features)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .catalogue import CLASSES


def mlp(width: int = 48) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, width), nn.Tanh(),
        nn.Linear(width, CLASSES),
    )  # fmt: skip


def autoencoder() -> nn.Module:
    """Anomaly detection, as in MLPerf Tiny, smaller."""
    layers: list[nn.Module] = []
    for a, b in ((128, 64), (64, 64), (64, 8), (8, 64), (64, 64)):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(64, 128))


def conv(cin: int, cout: int, kernel: int = 5, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(cin, cout, kernel, stride, kernel // 2), nn.BatchNorm1d(cout), nn.ReLU())


def cnn_1d() -> nn.Module:
    """Activities from an accelerometer and a gyroscope."""
    return nn.Sequential(
        conv(6, 16), nn.MaxPool1d(2), conv(16, 32), nn.MaxPool1d(2), conv(32, 32), nn.AdaptiveAvgPool1d(1),
        nn.Flatten(), nn.Linear(32, CLASSES),
    )  # fmt: skip


class Residual1d(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv(cin, cout, 5, stride), nn.Conv1d(cout, cout, 5, padding=2), nn.BatchNorm1d(cout)
        )
        self.short = nn.Sequential(nn.Conv1d(cin, cout, 1, stride), nn.BatchNorm1d(cout))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.short(x))


def resnet_1d() -> nn.Module:
    blocks = [Residual1d(16, 16, 1), Residual1d(16, 32, 2), Residual1d(32, 64, 2)]
    return nn.Sequential(conv(6, 16, 7, 2), *blocks, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, CLASSES))


class CausalBlock(nn.Module):
    """Bai et al. 2018: dilated convolutions that see the past alone."""

    def __init__(self, cin: int, cout: int, dilation: int) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)
        self.first, self.second = (nn.Conv1d(a, cout, 3, dilation=dilation) for a in (cin, cout))
        self.short = nn.Conv1d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(self.pad(x)))
        y = torch.relu(self.second(self.pad(y)))
        return torch.relu(y + self.short(x))


class TCN(nn.Module):
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            CausalBlock(6, width, 1), CausalBlock(width, width, 2), CausalBlock(width, width, 4)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x)[:, :, -1])


tcn = TCN


class KeywordTransformer(nn.Module):
    """Berg et al. 2021: a class token in front of the frames of a spectrogram, attention over time."""

    def __init__(self, frames: int = 20, features: int = 40, width: int = 32, heads: int = 2, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.5)
        self.position = nn.Parameter(torch.randn(1, frames + 1, width) * 0.5)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True) for _ in range(depth)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1) + self.position
        for layer in self.layers:
            y = layer(y)
        return self.head(y[:, 0])


keyword_transformer = KeywordTransformer


class Recurrent(nn.Module):
    """A recurrent layer over (time, features); what it says last is classified."""

    def __init__(self, kind: type[nn.RNNBase], features: int = 12, width: int = 24) -> None:
        super().__init__()
        self.layer = kind(features, width, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


def gru() -> nn.Module:
    return Recurrent(nn.GRU)


def lstm() -> nn.Module:
    return Recurrent(nn.LSTM)
