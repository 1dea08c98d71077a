"""ELSA-VOLO: timm's VOLO with ELSA in place of outlook attention, at any input size."""

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import resample_abs_pos_embed_nhwc, to_2tuple
from timm.models import build_model_with_cfg, checkpoint, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from timm.models._input import update_model_input_size
from timm.models.volo import VOLO
from torch import Tensor, nn

from .convert import convert
from .state_dict import unwrap_names


@torch.fx.wrap  # has a branch that cannot be traced
def _resample(pos_embed: Tensor, height: int, width: int) -> Tensor:
    """Interpolate position embeddings (1, H, W, C) to (1, height, width, C)."""
    if height == pos_embed.shape[1] and width == pos_embed.shape[2]:
        return pos_embed
    return resample_abs_pos_embed_nhwc(pos_embed, [height, width])


class ELSAVOLO(VOLO):
    """timm's ``VOLO`` with `elsa_ext.nn.ELSABlock` for outlookers, and position embeddings of any size.

    Images (B, in_chans, H, W), H and W at least 16, to logits (B, num_classes). ``forward_train``, for token
    labelling, gives in training what timm's does: the class token, whose logits ``head`` makes, the logits of every
    token, and the bounds of the tokens that ``use_mix_token`` mixed with those of the batch in reverse.

    Args:
        img_size: Image size that the position embeddings are learned at, and not interpolated.
        kernel_size: Side of ELSA's neighbourhood, odd.
        qk_scale: Scale of the product of query and key; 0 means one over the root of the channels per head.
        group_width: Channels per group of ELSA's KxK convolution.
        lam: 1 to multiply the attention maps by a static matrix, 0 not to.
        gamma: Weight of the static matrix that is added to the attention maps; 0 leaves it out.
        **volo: What timm's ``VOLO`` takes: ``layers``, ``embed_dims``, ``num_heads``, ``use_mix_token``, ….

    Raises:
        ValueError: An argument of ELSA is not what `elsa_ext.nn.ELSA` takes.
        TypeError: timm's ``VOLO`` does not know an argument.

    Source: Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786.
    """

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        kernel_size: int = 5,
        qk_scale: float | None = 1,
        group_width: int = 8,
        lam: int = 1,
        gamma: float = 1,
        **volo: Any,
    ) -> None:
        super().__init__(img_size=img_size, **volo)  # type: ignore[arg-type]  # timm takes a pair, too
        self.dynamic_img_size = True  # timm reads from it that the model takes other sizes than img_size
        convert(self, kernel_size=kernel_size, qk_scale=qk_scale, group_width=group_width, lam=lam, gamma=gamma)

    @torch.jit.ignore
    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Resample the position embeddings for images of another size."""
        height, width = to_2tuple(img_size)
        stride = self.feature_info[-1]["reduction"]
        if self.pos_embed is not None:  # as prune_intermediate_layers may leave it
            resampled = _resample(self.pos_embed.detach(), height // stride, width // stride)
            self.pos_embed = nn.Parameter(resampled.contiguous(), requires_grad=self.pos_embed.requires_grad)
        update_model_input_size(self, (height, width))

    def _stages(self, x: Tensor, taken: list[int], last: int) -> tuple[Tensor, list[Tensor]]:
        """Run the network up to its module ``last``, and collect what the modules in ``taken`` give."""
        maps: list[Tensor] = []
        for index, module in enumerate(self.network):
            if index <= last:
                if index == 2 and self.pos_embed is not None:
                    x = self.pos_drop(x + _resample(self.pos_embed, x.shape[1], x.shape[2]))
                if self.grad_checkpointing and not torch.jit.is_scripting():  # noqa: SIM108  (statements are skipped)
                    x = checkpoint(module, x)
                else:
                    x = module(x)
                if index in taken:
                    maps.append(x)
        return x, maps

    def forward_tokens(self, x: Tensor) -> Tensor:
        """Map patches (B, H, W, C) to tokens (B, N, C)."""
        x, _ = self._stages(x, [], len(self.network))
        return x.flatten(1, 2)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Give the maps after some stages, and unless ``intermediates_only`` what ``forward_features`` gives.

        Args:
            x: Images.
            indices: Stages to take, a number of last ones, or None for all.
            norm: Normalise the maps that have the final normalisation's width, all but the first stage's.
            stop_early: Skip what comes after the last stage taken.
            output_fmt: "NCHW".
            intermediates_only: Return the maps alone.
        """
        assert output_fmt == "NCHW", "Output format must be NCHW."
        stages, last_stage = feature_take_indices(len(self.stage_ends), indices)
        ends = [self.stage_ends[stage] for stage in stages]
        last = self.stage_ends[last_stage] if stop_early else len(self.network) - 1
        x, maps = self._stages(self.patch_embed(x).permute(0, 2, 3, 1), ends, last)
        if norm:
            maps = [self.norm(taken) if end >= 2 else taken for end, taken in zip(ends, maps, strict=True)]
        maps = [taken.permute(0, 3, 1, 2) for taken in maps]
        if intermediates_only:
            return maps
        if last == len(self.network) - 1:
            x = x.flatten(1, 2)
            x = self.norm(x if self.post_network is None else self.forward_cls(x))
        return x, maps


_CFG = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": None,
    "crop_pct": 0.96,
    "interpolation": "bicubic",
    "fixed_input_size": True,
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "first_conv": "patch_embed.conv.0",
    "classifier": ("head", "aux_head"),
    "paper_ids": "arXiv:2112.12786",
}
default_cfgs = generate_default_cfgs({f"elsa_volo_d{size}.untrained": _CFG for size in range(1, 6)})


def _fit_positions(state_dict: dict[str, Tensor], model: ELSAVOLO) -> dict[str, Tensor]:
    """Resample the position embeddings of what timm read of a checkpoint for the image size of the model."""
    state_dict = unwrap_names(state_dict, model.state_dict())
    size = model.pos_embed.shape[1:3]
    return {name: _resample(tensor, *size) if name == "pos_embed" else tensor for name, tensor in state_dict.items()}


def _create(variant: str, pretrained: bool, args: dict[str, Any], overrides: dict[str, Any]) -> ELSAVOLO:
    args = {**args, **overrides}
    out_indices = args.pop("out_indices", 3)
    model: ELSAVOLO = build_model_with_cfg(
        ELSAVOLO,
        variant,
        pretrained,
        pretrained_filter_fn=_fit_positions,
        feature_cfg={"out_indices": out_indices, "feature_cls": "getter"},
        **args,
    )
    return model


@register_model
def elsa_volo_d1(pretrained: bool = False, **kwargs: Any) -> ELSAVOLO:
    """ELSA-VOLO-D1."""
    args = {"layers": (4, 4, 8, 2), "embed_dims": (192, 384, 384, 384), "num_heads": (6, 12, 12, 12)}
    return _create("elsa_volo_d1", pretrained, args, kwargs)


@register_model
def elsa_volo_d2(pretrained: bool = False, **kwargs: Any) -> ELSAVOLO:
    """ELSA-VOLO-D2."""
    args = {"layers": (6, 4, 10, 4), "embed_dims": (256, 512, 512, 512), "num_heads": (8, 16, 16, 16)}
    return _create("elsa_volo_d2", pretrained, args, kwargs)


@register_model
def elsa_volo_d3(pretrained: bool = False, **kwargs: Any) -> ELSAVOLO:
    """ELSA-VOLO-D3."""
    args = {"layers": (8, 8, 16, 4), "embed_dims": (256, 512, 512, 512), "num_heads": (8, 16, 16, 16)}
    return _create("elsa_volo_d3", pretrained, args, kwargs)


@register_model
def elsa_volo_d4(pretrained: bool = False, **kwargs: Any) -> ELSAVOLO:
    """ELSA-VOLO-D4."""
    args = {"layers": (8, 8, 16, 4), "embed_dims": (384, 768, 768, 768), "num_heads": (12, 16, 16, 16)}
    return _create("elsa_volo_d4", pretrained, args, kwargs)


@register_model
def elsa_volo_d5(pretrained: bool = False, **kwargs: Any) -> ELSAVOLO:
    """ELSA-VOLO-D5."""
    args = {
        "layers": (12, 12, 20, 4),
        "embed_dims": (384, 768, 768, 768),
        "num_heads": (12, 16, 16, 16),
        "mlp_ratio": 4,
        "stem_hidden_dim": 128,
    }
    return _create("elsa_volo_d5", pretrained, args, kwargs)
