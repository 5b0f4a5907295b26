"""The architectures of the table, by name. PyTorch, torchvision and timm are imported only where one is built."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CLASSES = 10


@dataclass(frozen=True)
class Architecture:
    name: str
    input_shape: tuple[int, ...]  # without the batch
    build: Callable[[], Any]  # a torch.nn.Module


def _timm(name: str, pixels: int = 64, **options: Any) -> Architecture:
    """A network of timm at its own width."""

    def build() -> Any:
        return importlib.import_module("timm").create_model(name, num_classes=CLASSES, **options)

    return Architecture(name, (3, pixels, pixels), build)


def _narrow(name: str, generator: str, pixels: int, **options: Any) -> Architecture:
    """One of timm's families of mobile networks at a width that timm has no name for."""

    def build() -> Any:
        module, _, function = generator.partition(".")
        found = getattr(importlib.import_module(f"timm.models.{module}"), function)
        return found(name, num_classes=CLASSES, pretrained=False, **options)

    return Architecture(name, (3, pixels, pixels), build)


def _class(name: str, path: str, pixels: int, **options: Any) -> Architecture:
    """A network of timm or torchvision built from its class, because none of the named sizes is small enough."""

    def build() -> Any:
        module, _, cls = path.rpartition(".")
        return getattr(importlib.import_module(module), cls)(num_classes=CLASSES, **options)

    return Architecture(name, (3, pixels, pixels), build)


def _own(name: str, *shape: int, **options: Any) -> Architecture:
    """A network of images.py or sequences.py; `shape` of its input, without the batch."""

    def build() -> Any:
        module = importlib.import_module("zoo.images" if len(shape) == 3 else "zoo.sequences")
        return getattr(module, name)(**options)

    return Architecture(name, shape, build)


_IMAGES = (
    _own("mobilenetv1", 3, 96, 96),
    _timm("mobilenetv2_035", 96),
    _timm("mobilenetv3_small_050", 96),
    _narrow("mobilenetv3_large_w035", "mobilenetv3._gen_mobilenet_v3", 64, channel_multiplier=0.35),
    _timm("mobilenetv4_conv_small_035"),
    _timm("mnasnet_small"),
    _timm("semnasnet_050"),
    _narrow("efficientnet_lite_w035", "efficientnet._gen_efficientnet_lite", 96, channel_multiplier=0.35),
    _narrow("efficientnet_b0_w035", "efficientnet._gen_efficientnet", 96, channel_multiplier=0.35),
    _narrow("fbnetc_w050", "efficientnet._gen_fbnetc", 64, channel_multiplier=0.5),
    _narrow("mixnet_s_w050", "efficientnet._gen_mixnet_s", 64, channel_multiplier=0.5),
    _timm("lcnet_050", 96),
    _timm("tinynet_e", 96),
    _timm("ghostnet_050"),
    _timm("repghostnet_050"),
    _timm("starnet_s050"),
    _class("shufflenet_v2", "torchvision.models.shufflenetv2.ShuffleNetV2", 96,
           stages_repeats=[4, 8, 4], stages_out_channels=[24, 48, 96, 192, 512]),
    _class("squeezenet", "torchvision.models.squeezenet.SqueezeNet", 96, version="1_1"),
    _class("densenet", "torchvision.models.densenet.DenseNet", 64,
           growth_rate=8, block_config=(4, 6, 8, 6), num_init_features=16),
    _own("googlenet", 3, 64, 64),
    _own("resnet8", 3, 32, 32),
    _timm("test_resnet"),
    _own("se_resnet", 3, 48, 48),
    _own("regnetx", 3, 64, 64),
    _own("repvgg", 3, 48, 48),
    _own("mobileone", 3, 64, 64),
    _own("vgg_small", 3, 32, 32),
    _own("unet", 3, 48, 48),
    _own("csp_detector", 3, 64, 64),
    _own("hardnet", 3, 64, 64),
    _timm("dla46x_c"),
    _timm("ese_vovnet19b_slim_dw"),
    _own("ds_cnn", 1, 49, 10),
    _own("conv_autoencoder", 1, 32, 32),
    _class("convnext", "timm.models.convnext.ConvNeXt", 64, depths=(1, 1, 2, 1), dims=(16, 32, 64, 96)),
    _class("edgenext", "timm.models.edgenext.EdgeNeXt", 64, dims=(16, 24, 32, 48), depths=(1, 1, 2, 1),
           heads=(4, 4, 4, 4)),
    _class("vit", "timm.models.vision_transformer.VisionTransformer", 32,
           img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3, mlp_ratio=2.0),
    _class("mlp_mixer", "timm.models.mlp_mixer.MlpMixer", 32, img_size=32, patch_size=8, num_blocks=3, embed_dim=48),
    _timm("mobilevit_xxs"),
)  # fmt: skip

_SEQUENCES = (
    _own("mlp", 64),
    _own("autoencoder", 128),
    _own("cnn_1d", 6, 128),
    _own("resnet_1d", 6, 128),
    _own("tcn", 6, 64),
    _own("keyword_transformer", 20, 40),
    _own("gru", 16, 12),
    _own("lstm", 16, 12),
)

ARCHITECTURES = _IMAGES + _SEQUENCES
