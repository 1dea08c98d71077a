"""torchvision's Mask R-CNN on the features of ELSA-Swin; imported by its own name, since it calls torchvision's ops."""

from typing import Any

import timm
import torch
from timm.models import FeatureListNet
from torch import Tensor, nn

from .._install import install_command
from .checkpoint import load_official_checkpoint
from .state_dict import Weights

try:
    from torchvision.models import WeightsEnum, list_models
    from torchvision.models._api import register_model
    from torchvision.models.detection import MaskRCNN
    from torchvision.ops import FeaturePyramidNetwork
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
except ModuleNotFoundError as error:
    if error.name != "torchvision":
        raise
    raise ImportError(f"elsa_ext.models.detection needs torchvision: {install_command('torchvision')}") from None


def _check_dtype(weight: Tensor) -> None:
    """Refuse what torchvision's non-maximum suppression will: boxes are of the dtype of the maps."""
    if weight.dtype in (torch.bfloat16, torch.float16) and weight.is_cpu and not torch.is_autocast_enabled("cpu"):
        name = str(weight.dtype)
        raise RuntimeError(
            f"NormalizedFPN: torchvision's detectors take weights in {name} on the CPU only under torch.autocast: call "
            f"the model under torch.autocast('cpu', {name}), or keep float32"
        )


class NormalizedFPN(nn.Module):
    """A feature pyramid over channels-last maps, each of which has a LayerNorm of its own first.

    Images (B, 3, H, W), H and W multiples of the patch size, to maps (B, out_channels, ⌈H/s⌉, ⌈W/s⌉) of strides s,
    named "0", "1", … by stage, and "pool", the coarsest of them at half its size. The residual stream that a stage
    passes on is not normalised: the detectors of Swin and ELSA normalise what they take from it, and so does this.

    Args:
        body: A channels-last timm model, made with ``features_only=True``.
        out_channels: Channels of every map.

    Raises:
        RuntimeError: The weights are 16-bit, on the CPU, and there is no autocast: torchvision's ``nms`` refuses boxes
            that are made from such maps.
    """

    def __init__(self, body: FeatureListNet, out_channels: int = 256) -> None:
        super().__init__()
        channels = body.feature_info.channels()
        self.body = body
        self.norms = nn.ModuleList(map(nn.LayerNorm, channels))
        self.fpn = FeaturePyramidNetwork(channels, out_channels, LastLevelMaxPool())
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the pyramid of ``images``."""
        if not torch.jit.is_scripting():
            _check_dtype(next(self.parameters()))
        features = self.body(images)
        maps: dict[str, Tensor] = {}
        for stage, norm in enumerate(self.norms):  # TorchScript has no zip of modules and tensors
            maps[str(stage)] = norm(features[stage]).permute(0, 3, 1, 2)
        pyramid: dict[str, Tensor] = self.fpn(maps)
        return pyramid


def elsa_swin_fpn_backbone(
    model: str = "elsa_swin_tiny", *, weights: Weights | None = None, out_channels: int = 256, **arguments: Any
) -> NormalizedFPN:
    """Make a backbone for torchvision's detectors: an ELSA-Swin for images of any size, and a feature pyramid over it.

    Args:
        model: A name in timm's registry, of a model with four stages.
        weights: Of the classifier, as `elsa_ext.models.load_official_checkpoint` takes them; its head is dropped. None:
            random ones.
        out_channels: Channels of every map.
        **arguments: Of ``timm.create_model``: ``drop_path_rate``, ``depths``, …. ``num_classes`` is that of the
            classifier whose ``weights`` these are.

    Raises:
        ValueError: ``weights`` do not fit the classifier.
        OSError: The file ``weights`` cannot be read.

    Example:
        >>> model = FasterRCNN(elsa_swin_fpn_backbone("elsa_swin_small"), num_classes=91)
    """
    classifier = timm.create_model(model, **arguments)
    if weights is not None:
        load_official_checkpoint(classifier, weights)
    # What timm makes for features_only=True, which would read the weights without complaint about any that do not fit.
    body = FeatureListNet(classifier, out_indices=(0, 1, 2, 3), output_fmt="NHWC", flatten_sequential=True)
    return NormalizedFPN(body, out_channels)


class MaskRCNN_ELSASwinTiny_Weights(WeightsEnum):
    """Published weights of `mask_rcnn_elsa_swin_tiny`: there are none."""


def mask_rcnn_elsa_swin_tiny(
    *,
    weights: MaskRCNN_ELSASwinTiny_Weights | None = None,
    progress: bool = True,
    num_classes: int | None = None,
    weights_backbone: Weights | None = None,
    trainable_backbone_layers: int | None = None,
    drop_path_rate: float = 0.2,
    **mask_rcnn: Any,
) -> MaskRCNN:
    """Make torchvision's Mask R-CNN with a feature pyramid over ELSA-Swin-T, as in the paper's experiments on COCO.

    No layer is frozen: ELSA-Swin has no batch statistics that a small batch could spoil. Importing this module makes
    it known to ``torchvision.models.get_model``, whose arguments it takes.

    Args:
        weights: None, for there are no published ones.
        progress: Has no effect: nothing is downloaded.
        num_classes: Classes with the background, which is class 0. None: the 91 of COCO.
        weights_backbone: Of a classifier of 1000 classes, as `elsa_ext.models.load_official_checkpoint` takes them.
            None: random ones.
        trainable_backbone_layers: None, or 5 as all layers are trained.
        drop_path_rate: Stochastic depth; the paper's code has 0.2 for 36 epochs, 0.1 for 12.
        **mask_rcnn: What torchvision's ``MaskRCNN`` takes: ``min_size``, ``max_size``, ``image_mean``, ….

    Returns:
        In training ``model(images, targets)`` is a dict of five losses, in evaluation ``model(images)`` a list of dicts
        of ``boxes``, ``labels``, ``scores`` and ``masks``, one per image.

    Raises:
        ValueError: ``weights`` or ``trainable_backbone_layers`` is another, or ``weights_backbone`` do not fit the
            classifier.
        OSError: The file ``weights_backbone`` cannot be read.

    Source: Zhou et al., "ELSA: Enhanced Local Self-Attention for Vision Transformer", arXiv 2112.12786.
    """
    if weights is not None:
        raise ValueError(
            f"mask_rcnn_elsa_swin_tiny: weights must be None, for none are published, got {weights!r}; load_state_dict "
            "takes what you trained, weights_backbone a classifier's"
        )
    if trainable_backbone_layers not in (None, 5):
        raise ValueError(
            "mask_rcnn_elsa_swin_tiny: trainable_backbone_layers must be None or 5, all of them, "
            f"got {trainable_backbone_layers}"
        )
    backbone = elsa_swin_fpn_backbone("elsa_swin_tiny", weights=weights_backbone, drop_path_rate=drop_path_rate)
    return MaskRCNN(backbone, 91 if num_classes is None else num_classes, **mask_rcnn)


if mask_rcnn_elsa_swin_tiny.__name__ not in list_models():  # where this module is imported anew
    register_model()(mask_rcnn_elsa_swin_tiny)
