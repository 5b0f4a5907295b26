"""From a random network to an ONNX file whose activations are as alive as those of a trained one."""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tinytrain_compiler.quantize.noise import noise_pixels
from torch import nn

from .catalogue import Architecture

SAMPLES = 64
_BATCHES, _BATCH = 4, 16


def samples_of(shape: tuple[int, ...], count: int = SAMPLES) -> NDArray[np.float32]:
    """Inputs (count, *shape), about -2 to 2: images with edges, or signals whose loudness differs."""
    if len(shape) == 3:
        return (noise_pixels(shape, 0, count).astype(np.float32) - 127.5) / 64
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, *shape)).astype(np.float32)
    if len(shape) == 2:
        x = 0.5 * x + np.cumsum(rng.standard_normal((count, *shape)), 2).astype(np.float32) / np.sqrt(shape[1])
    return (x * rng.uniform(0.3, 1.2, (count, *[1] * len(shape)))).astype(np.float32)


def network(architecture: Architecture) -> nn.Module:
    """The network with seeded random weights, its batch normalisation fitted to its inputs, in eval mode."""
    torch.manual_seed(zlib.crc32(architecture.name.encode()))
    module: nn.Module = architecture.build()
    _enliven(module)
    x = torch.from_numpy(samples_of(architecture.input_shape))
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    module.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the average over all batches
    with torch.no_grad():
        for batch in x.split(_BATCH)[:_BATCHES]:
            module(batch)
    return module.eval()


def _enliven(module: nn.Module) -> None:
    """Initialisation starts many branches at zero; training moves them away from it."""
    with torch.no_grad():
        for each in module.modules():
            if isinstance(each, nn.modules.batchnorm._BatchNorm | nn.LayerNorm) and each.weight is not None:
                each.weight.uniform_(0.5, 1.5)
                if each.bias is not None:
                    each.bias.normal_(0, 0.2)
        for parameter in module.parameters():
            if parameter.ndim == 1 and float(parameter.abs().max()) < 1e-3:  # zero biases, the scale of a layer
                parameter.normal_(0, 0.1)


def export(architecture: Architecture, exporter: str, path: Path) -> None:
    """Write the ONNX file. exporter: torchscript (the legacy one) or dynamo."""
    module = network(architecture)
    x = torch.from_numpy(samples_of(architecture.input_shape, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        partial = path.with_suffix(".part")
        torch.onnx.export(
            module, (x,), str(partial), dynamo=exporter == "dynamo", input_names=["input"], output_names=["output"],
            **({"external_data": False, "verbose": False} if exporter == "dynamo" else {}),
        )  # fmt: skip
    partial.rename(path)
