"""ELSA-Swin: timm's Swin Transformer with ELSA, or another operator, in place of windows in all stages but the last."""

from functools import partial
from typing import Any

import torch
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)
from timm.layers import PatchEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor

from ..nn import LocalSpec
from . import local
from .checkpoint import convert_official
from .convert import convert
from .state_dict import unwrap_names


class ELSASwin(SwinTransformer):
    """timm's ``SwinTransformer`` with `elsa_ext.nn.ELSABlock`, or another operator, in every stage but the last.

    Images (B, in_chans, H, W) to logits (B, num_classes).

    Args:
        kernel_size: Side of the neighbourhood, odd for ELSA. Windows are of ``window_size``, as timm's.
        qk_scale: Of ELSA, scale of the product of query and key; 0 means one over the root of the channels per head.
        group_width: Channels per group of ELSA's KxK convolution.
        lam: 1 to multiply the attention maps by a static matrix, 0 not to.
        gamma: Weight of the static matrix that is added to the attention maps; 0 leaves it out.
        spec: The operator in place of ELSA, of `elsa_ext.nn.LocalSpec`, such as ``"qk+rb softmax window"``, whose
            windows are shifted in every second block; or ELSA itself, ``"hadamard softmax neighborhood"``, with
            ``mul`` and ``add`` for ``lam`` and ``gamma``. Its heads are those of the stage, unless it says otherwise.
        dynamic_img_size: Take images of any size, padded to whole patches; False means of ``img_size`` alone.
        weight_init: timm's name of an initialisation.
        **swin: What timm's ``SwinTransformer`` takes: ``img_size``, ``depths``, ``num_heads``, ``drop_path_rate``, ….

    Raises:
        ValueError: An argument is not what `elsa_ext.nn.ELSA` or `elsa_ext.nn.LocalAttention` takes, or ``lam`` or
            ``gamma`` is given beside ``spec``.
        TypeError: timm's ``SwinTransformer`` does not know an argument.

    Source: Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786.
    """

    def __init__(
        self,
        *,
        kernel_size: int = 7,
        qk_scale: float | None = 1,
        group_width: int = 8,
        lam: int = 0,
        gamma: float = 1,
        spec: str | None = None,
        dynamic_img_size: bool = True,
        weight_init: str = "",
        **swin: Any,
    ) -> None:
        if spec is not None and (lam, gamma) != (0, 1):
            raise ValueError(f'ELSASwin: lam and gamma are mul and add in spec, got {lam} and {gamma} beside "{spec}"')
        operator = None if spec is None else LocalSpec.parse(spec)
        swin.setdefault("embed_layer", partial(PatchEmbed, dynamic_img_pad=dynamic_img_size))
        super().__init__(weight_init="skip", dynamic_img_size=dynamic_img_size, **swin)
        if operator is None or operator.elsa:
            lam, gamma = (lam, gamma) if operator is None else (int(operator.mul), int(operator.add))
            convert(self, kernel_size=kernel_size, qk_scale=qk_scale, group_width=group_width, lam=lam, gamma=gamma)
        else:
            options = {"qk_scale": qk_scale, "group_width": group_width} if operator.hadamard else {}
            side = None if operator.region == "window" else kernel_size
            stages = range(len(self.layers) - 1)
            for blocks, replacements in local.conversions(self, stages, side, operator, **options):
                for index, block in enumerate(replacements):
                    blocks[index] = block
        if weight_init != "skip":
            self.weight_init_mode = weight_init
            self.init_weights(weight_init)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Return the names of what is not decayed: biases of relative positions, as timm's are not."""
        ours = {f"{name}.r_bias" for name, module in self.named_modules() if getattr(module, "norm", "") == "softmax"}
        return super().no_weight_decay() | ours.intersection(name for name, _ in self.named_parameters())


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
        "paper_ids": "arXiv:2112.12786",
        **kwargs,
    }


default_cfgs = generate_default_cfgs(
    {
        "elsa_swin_micro.untrained": _cfg(
            num_classes=10,
            input_size=(3, 32, 32),
            pool_size=(4, 4),
            crop_pct=1.0,
            mean=IMAGENET_INCEPTION_MEAN,
            std=IMAGENET_INCEPTION_STD,
        ),
        "elsa_swin_tiny.untrained": _cfg(),
        "elsa_swin_small.untrained": _cfg(),
        "elsa_swin_base.untrained": _cfg(),
    }
)


def _fit(state_dict: dict[str, Tensor], model: ELSASwin) -> dict[str, Tensor]:
    """Bring what timm read of a checkpoint to the names and the window sizes of the model."""
    official = unwrap_names(state_dict, model.state_dict())
    fitted: dict[str, Tensor] = checkpoint_filter_fn(convert_official(official), model)
    return fitted


def _create(variant: str, pretrained: bool, args: dict[str, Any], overrides: dict[str, Any]) -> ELSASwin:
    args = {**args, **overrides}
    out_indices = args.pop("out_indices", tuple(range(len(args["depths"]))))
    model: ELSASwin = build_model_with_cfg(
        ELSASwin,
        variant,
        pretrained,
        pretrained_filter_fn=_fit,
        feature_cfg={"flatten_sequential": True, "out_indices": out_indices},
        **args,
    )
    return model


@register_model
def elsa_swin_micro(pretrained: bool = False, **kwargs: Any) -> ELSASwin:
    """ELSA-Swin of three stages for 32x32 images, under a million parameters."""
    args = {
        "patch_size": 2,
        "window_size": 4,
        "embed_dim": 32,
        "depths": (1, 2, 1),
        "num_heads": (2, 4, 8),
        "drop_path_rate": 0.0,
    }
    return _create("elsa_swin_micro", pretrained, args, kwargs)


@register_model
def elsa_swin_tiny(pretrained: bool = False, **kwargs: Any) -> ELSASwin:
    """ELSA-Swin-T at 224x224, 29.14 M parameters."""
    args = {
        "patch_size": 4,
        "window_size": 7,
        "embed_dim": 96,
        "depths": (2, 2, 6, 2),
        "num_heads": (3, 6, 12, 24),
        "group_width": 4,
    }
    return _create("elsa_swin_tiny", pretrained, args, kwargs)


@register_model
def elsa_swin_small(pretrained: bool = False, **kwargs: Any) -> ELSASwin:
    """ELSA-Swin-S at 224x224."""
    args = {"patch_size": 4, "window_size": 7, "embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)}
    return _create("elsa_swin_small", pretrained, args, kwargs)


@register_model
def elsa_swin_base(pretrained: bool = False, **kwargs: Any) -> ELSASwin:
    """ELSA-Swin-B at 224x224."""
    args = {"patch_size": 4, "window_size": 7, "embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}
    return _create("elsa_swin_base", pretrained, args, kwargs)
