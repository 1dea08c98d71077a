"""DiNAT as a client of natten 0.14 to 0.17: the calls and layouts of transformers 4.48, with its parameter names."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from elsa_ext.compat import natten
from torch import Tensor


class Dinat:
    """The classifier as a function of an image; ``weight`` makes a parameter of a name and a shape when it is used."""

    def __init__(self, config: dict[str, Any], weight: Callable[[str, tuple[int, ...]], Tensor]) -> None:
        self.config = config
        self.weights: dict[str, Tensor] = {}
        self._make = weight

    def weight(self, name: str, *shape: int) -> Tensor:
        if name not in self.weights:
            self.weights[name] = self._make(name, shape).requires_grad_()
        return self.weights[name]

    def linear(self, x: Tensor, name: str, features: int) -> Tensor:
        return F.linear(x, self.weight(f"{name}.weight", features, x.shape[-1]), self.weight(f"{name}.bias", features))

    def norm(self, x: Tensor, name: str) -> Tensor:
        size = x.shape[-1:]
        return F.layer_norm(x, size, self.weight(f"{name}.weight", *size), self.weight(f"{name}.bias", *size), 1e-5)

    def attention(self, x: Tensor, name: str, heads: int, dilation: int) -> Tensor:
        """What transformers computes between two reshapes, through the names of natten 0.14."""
        kernel_size, channels = self.config["kernel_size"], x.shape[-1]
        query, key, value = (
            self.linear(x, f"{name}.self.{part}", channels).unflatten(-1, (heads, -1)).permute(0, 3, 1, 2, 4)
            for part in ("query", "key", "value")
        )
        query = query / (channels // heads) ** 0.5
        rpb = self.weight(f"{name}.self.rpb", heads, 2 * kernel_size - 1, 2 * kernel_size - 1)
        attn = natten.natten2dqkrpb(query, key, rpb, kernel_size, dilation).softmax(-1)
        out = natten.natten2dav(attn, value, kernel_size, dilation)
        return self.linear(out.permute(0, 2, 3, 1, 4).flatten(3), f"{name}.output.dense", channels)

    def layer(self, x: Tensor, name: str, heads: int, dilation: int) -> Tensor:
        reach, (height, width) = self.config["kernel_size"] * dilation, x.shape[1:3]
        y = self.norm(x, f"{name}.layernorm_before")
        y = F.pad(y, (0, 0, 0, max(0, reach - width), 0, max(0, reach - height)))
        x = x + self.attention(y, f"{name}.attention", heads, dilation)[:, :height, :width]
        y = self.norm(x, f"{name}.layernorm_after")
        y = F.gelu(self.linear(y, f"{name}.intermediate.dense", 3 * x.shape[-1]))
        return x + self.linear(y, f"{name}.output.dense", x.shape[-1])

    def __call__(self, images: Tensor) -> Tensor:
        config, width = self.config, self.config["embed_dim"]
        x = images
        for index, features in enumerate((width // 2, width)):
            name = f"dinat.embeddings.patch_embeddings.projection.{index}"
            weight = self.weight(f"{name}.weight", features, x.shape[1], 3, 3)
            x = F.conv2d(x, weight, self.weight(f"{name}.bias", features), stride=2, padding=1)
        x = self.norm(x.permute(0, 2, 3, 1), "dinat.embeddings.norm")
        for level, (depth, heads) in enumerate(zip(config["depths"], config["num_heads"], strict=True)):
            name = f"dinat.encoder.levels.{level}"
            for index in range(depth):
                x = self.layer(x, f"{name}.layers.{index}", heads, config["dilations"][level][index])
            if level + 1 < len(config["depths"]):
                channels = x.shape[-1]
                weight = self.weight(f"{name}.downsample.reduction.weight", 2 * channels, channels, 3, 3)
                x = F.conv2d(x.permute(0, 3, 1, 2), weight, stride=2, padding=1).permute(0, 2, 3, 1)
                x = self.norm(x, f"{name}.downsample.norm")
        x = self.norm(x, "dinat.layernorm").flatten(1, 2).mean(1)
        return self.linear(x, "classifier", config["num_labels"])


def random_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """A parameter as transformers makes it: small weights, gains of one, and no bias."""
    if len(shape) > 1:
        return 0.1 * torch.randn(shape)
    return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
