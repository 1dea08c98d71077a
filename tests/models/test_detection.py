"""Mask R-CNN on ELSA-Swin: what torchvision's training loops give it and take from it, and the example."""

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any

import elsa_ext.models
import pytest
import timm
import torch
import torchvision
from elsa_ext._install import install_command
from elsa_ext.models import detection
from elsa_ext.models.detection import NormalizedFPN, elsa_swin_fpn_backbone, mask_rcnn_elsa_swin_tiny
from PIL import Image
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN

EXAMPLE = Path(__file__).parents[2] / "docs" / "detection.py"
SMALL = {"embed_dim": 12, "depths": (1, 1, 2, 2), "num_heads": (1, 2, 2, 4), "drop_path_rate": 0.0}
LOSSES = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}


def compiled_ops_load() -> bool:
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except RuntimeError:
        return False
    return True


def build(version: str) -> str:
    """Return what a wheel was built for: ``cu130`` of ``2.14.1+cu130``."""
    return version.partition("+")[2]


# A torchvision for CUDA does not load beside a torch without; one that was built for this torch must.
foreign_torchvision = not compiled_ops_load() and build(torch.__version__) != build(torchvision.__version__)
needs_ops = pytest.mark.skipif(
    foreign_torchvision,
    reason=f"the compiled ops of torchvision {torchvision.__version__} do not load in torch {torch.__version__}",
)


def small_model(**mask_rcnn: Any) -> MaskRCNN:
    arguments = {"min_size": 64, "max_size": 128, "rpn_post_nms_top_n_train": 100, "box_batch_size_per_image": 16}
    return MaskRCNN(elsa_swin_fpn_backbone(**SMALL, out_channels=32), 3, **{**arguments, **mask_rcnn})


def example(height: int, width: int) -> tuple[Tensor, dict[str, Tensor]]:
    """A noisy image with a bright rectangle of class 1 and a dark one of class 2."""
    image = torch.rand(3, height, width) * 0.2 + 0.4
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    masks[0, 8:30, 10:40] = 1
    masks[1, 34:58, 20:44] = 1
    image = image + 0.4 * masks[0] - 0.4 * masks[1]
    boxes = torch.tensor([[10.0, 8, 40, 30], [20, 34, 44, 58]])
    return image, {"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks}


def batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of different sizes and their targets."""
    images, targets = zip(example(64, 75), example(90, 64), strict=True)
    return list(images), list(targets)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (100, 36), (164, 204)])
def test_pyramid(height: int, width: int) -> None:
    backbone = elsa_swin_fpn_backbone(**SMALL, out_channels=20)
    maps = backbone(torch.rand(2, 3, height, width))
    sizes = [(-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32)]
    sizes.append(tuple(-(-size // 2) for size in sizes[-1]))
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        name: (2, 20, *size) for name, size in zip(["0", "1", "2", "3", "pool"], sizes, strict=True)
    }


def test_pyramid_is_of_normalised_features() -> None:
    backbone = elsa_swin_fpn_backbone(**SMALL, out_channels=20).eval()
    features = timm.create_model("elsa_swin_tiny", features_only=True, **SMALL).eval()
    features.load_state_dict(backbone.body.state_dict())
    images = torch.rand(1, 3, 100, 68)
    maps = {str(i): nn.functional.layer_norm(x, x.shape[-1:]).movedim(-1, 1) for i, x in enumerate(features(images))}
    expected = backbone.fpn(maps)
    assert all(torch.allclose(x, expected[name], atol=1e-5) for name, x in backbone(images).items())


def test_published_size() -> None:
    with torch.device("meta"):
        model = mask_rcnn_elsa_swin_tiny()
        resnet = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    assert isinstance(model, MaskRCNN)
    classifier = timm.create_model("elsa_swin_tiny", device="meta")
    body = count(classifier) - count(classifier.norm) - count(classifier.head)
    norms = 2 * (96 + 192 + 384 + 768)
    fpn = sum(256 * channels + 256 + 256 * 256 * 9 + 256 for channels in (96, 192, 384, 768))
    heads = count(resnet.rpn) + count(resnet.roi_heads)
    assert count(model) == body + norms + fpn + heads == 48_705_403
    assert model.roi_heads.box_predictor.cls_score.out_features == 91
    assert [block.drop_path.p for block in model.backbone.body.layers_0.blocks] == pytest.approx([0, 0.2 / 11])


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_arguments_reach_their_places() -> None:
    model = mask_rcnn_elsa_swin_tiny(
        num_classes=2, drop_path_rate=0.0, min_size=320, max_size=400, image_mean=[0.5] * 3, box_score_thresh=0.3
    )
    assert (model.transform.min_size, model.transform.max_size) == ((320,), 400)
    assert model.transform.image_mean == [0.5] * 3
    assert model.roi_heads.score_thresh == 0.3
    assert model.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 2
    assert all(isinstance(block.drop_path, nn.Identity) or block.drop_path.p == 0 for block in elsa_blocks(model))


def elsa_blocks(model: MaskRCNN) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, elsa_ext.nn.ELSABlock)]


def test_weights_of_a_classifier(tmp_path: Path) -> None:
    classifier = timm.create_model("elsa_swin_tiny", num_classes=7, **SMALL)
    torch.save({"state_dict": classifier.state_dict()}, tmp_path / "classifier.pth")
    backbone = elsa_swin_fpn_backbone(weights=tmp_path / "classifier.pth", num_classes=7, **SMALL)
    expected = classifier.state_dict()
    loaded = {name.replace("layers_", "layers."): tensor for name, tensor in backbone.body.state_dict().items()}
    assert expected.keys() - loaded.keys() == {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.items())
    with pytest.raises(ValueError, match="the checkpoint has 7 classes, the model 1000"):
        elsa_swin_fpn_backbone(weights=tmp_path / "classifier.pth", **SMALL)


def test_weights_of_the_backbone_of_mask_rcnn() -> None:
    weights = timm.create_model("elsa_swin_tiny").state_dict()
    model = mask_rcnn_elsa_swin_tiny(weights_backbone=weights)
    assert torch.equal(model.backbone.body.layers_3.downsample.norm.weight, weights["layers.3.downsample.norm.weight"])
    assert torch.equal(model.backbone.body.patch_embed.proj.weight, weights["patch_embed.proj.weight"])


@needs_ops
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_losses_and_gradients(autocast: bool) -> None:
    model = small_model()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        losses = model(*batch())
    assert losses.keys() == LOSSES
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.slow
@needs_ops
def test_training_lowers_the_loss_and_finds_what_it_was_shown() -> None:
    model = small_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    images, targets = batch()
    history = []
    for _ in range(40):
        loss = torch.stack(list(model(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-5:]) < 0.4 * sum(history[:5])
    for found, target in zip(model.eval()(images), targets, strict=True):
        overlap = torchvision.ops.box_iou(target["boxes"], found["boxes"][found["scores"] > 0.5])
        assert (overlap.max(1).values > 0.5).all()


@pytest.mark.thorough
@needs_ops
def test_predictions_are_on_the_scale_of_each_image() -> None:
    model = small_model(box_score_thresh=0.0).eval()
    image, _ = example(64, 80)
    with torch.no_grad():
        (plain,) = model([image])
        # The transform brings both to the same size: nearest neighbours are taken back by its interpolation.
        (larger,) = model([image.repeat_interleave(2, 1).repeat_interleave(2, 2)])
        several = model(batch()[0])
    assert plain["boxes"].shape == (len(plain["scores"]), 4)
    assert len(plain["boxes"]) > 0
    assert plain["labels"].dtype == torch.int64
    assert plain["masks"].shape == (len(plain["scores"]), 1, 64, 80)
    assert larger["masks"].shape[-2:] == (128, 160)
    assert torch.allclose(larger["boxes"], 2 * plain["boxes"], atol=0.1)
    assert [found["masks"].shape[-2:] for found in several] == [(64, 75), (90, 64)]
    for found, (height, width) in zip(several, [(64, 75), (90, 64)], strict=True):
        assert (found["boxes"] >= 0).all()
        assert (found["boxes"] <= torch.tensor([width, height, width, height])).all()


BFLOAT16 = torch.autocast("cpu", torch.bfloat16)


@pytest.mark.thorough
@needs_ops
def test_weights_in_bfloat16() -> None:
    """As torchvision's own Mask R-CNN: with autocast, and not without, which is said in one line."""
    model = small_model().bfloat16()
    with BFLOAT16:
        losses = model(*batch())
        torch.stack(list(losses.values())).sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        found = model.eval()([image.bfloat16() for image in batch()[0]])
    assert [one["masks"].shape[-2:] for one in found] == [(64, 75), (90, 64)]
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(RuntimeError) as caught:
            model([image.to(dtype) for image in batch()[0]])
        assert str(caught.value) == (
            "NormalizedFPN: torchvision's detectors take weights in torch.bfloat16 on the CPU only under "
            "torch.autocast: call the model under torch.autocast('cpu', torch.bfloat16), or keep float32"
        )
    theirs = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=64)
    with torch.no_grad(), pytest.raises(RuntimeError, match="not implemented for 'BFloat16'"):
        theirs.bfloat16().eval()([torch.rand(3, 64, 75).bfloat16()])


ignore_torchscript = pytest.mark.filterwarnings("ignore:.*torch.jit:", "ignore:RCNN always returns")


@pytest.mark.slow
@needs_ops
@ignore_torchscript
def test_scripted() -> None:
    model = small_model(box_score_thresh=0.0).eval()
    scripted = torch.jit.script(model)
    images, targets = batch()
    backbone = model.backbone(images[0][None])
    assert all(torch.allclose(x, backbone[name], atol=1e-5) for name, x in scripted.backbone(images[0][None]).items())
    losses, found = scripted(images)
    assert losses == {}
    assert [one["masks"].shape[-2:] for one in found] == [(64, 75), (90, 64)]
    losses, _ = scripted.train()(images, targets)
    assert losses.keys() == LOSSES
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in scripted.parameters())


@pytest.mark.thorough
def test_by_name_from_torchvision(tmp_path: Path) -> None:
    """What torchvision's training script calls."""
    name = "mask_rcnn_elsa_swin_tiny"
    assert name in torchvision.models.list_models()
    assert torchvision.models.list_models(elsa_ext.models) == [name]
    assert torchvision.models.get_model_builder(name) is mask_rcnn_elsa_swin_tiny
    assert list(torchvision.models.get_model_weights(name)) == []
    options = {"weights": None, "trainable_backbone_layers": None, "progress": False, "_skip_resize": True}
    model = torchvision.models.get_model(name, weights_backbone=None, num_classes=7, **options)
    assert isinstance(model, MaskRCNN)
    assert model.roi_heads.mask_predictor.mask_fcn_logits.out_channels == 7
    assert torchvision.models.get_model(name, num_classes=None).roi_heads.box_predictor.cls_score.out_features == 91
    classifier = timm.create_model("elsa_swin_tiny").state_dict()
    torch.save({"model": classifier}, tmp_path / "classifier.pth")
    model = torchvision.models.get_model(name, weights_backbone=str(tmp_path / "classifier.pth"))
    assert torch.equal(model.backbone.body.patch_embed.proj.weight, classifier["patch_embed.proj.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "DEFAULT"}, "weights must be None, for none are published, got 'DEFAULT'; load_state_dict takes "),
        ({"trainable_backbone_layers": 3}, "trainable_backbone_layers must be None or 5, all of them, got 3$"),
    ],
)
def test_what_torchvision_has_and_this_has_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^mask_rcnn_elsa_swin_tiny: {message}"):
        torchvision.models.get_model("mask_rcnn_elsa_swin_tiny", **options)


def test_importing_it_again_does_no_harm() -> None:
    spec = importlib.util.spec_from_file_location("elsa_ext.models.again", detection.__file__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert torchvision.models.get_model_builder("mask_rcnn_elsa_swin_tiny") is mask_rcnn_elsa_swin_tiny


class NoTorchvision:
    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        if name == "torchvision":
            raise ModuleNotFoundError("No module named 'torchvision'", name=name)


def test_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoTorchvision, *sys.meta_path])
    spec = importlib.util.spec_from_file_location("elsa_ext.models.fresh_detection", detection.__file__)
    with pytest.raises(ImportError) as caught:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    assert str(caught.value) == f"elsa_ext.models.detection needs torchvision: {install_command('torchvision')}"
    assert caught.value.__suppress_context__


# Two steps find no coin.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:boxes doesn't contain any box")
@needs_ops
def test_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "coins.png"
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--steps", "2", "--output", str(picture)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[:3]] == ["step", "1", "2"]
    assert " of 12 coins trained on, " in table[3]
    assert " of 12 never seen, " in table[3]
    assert Image.open(picture).convert("RGB").getextrema() != ((255, 255),) * 3
    assert list(tmp_path.iterdir()) == [picture]


def test_normalized_fpn_of_another_model() -> None:
    body = timm.create_model(
        "swin_tiny_patch4_window7_224", features_only=True, dynamic_img_size=True, embed_dim=12, depths=(1, 1, 1, 1)
    )
    assert NormalizedFPN(body, 8)(torch.rand(1, 3, 64, 64))["3"].shape == (1, 8, 2, 2)


def test_example_refuses_a_missing_folder_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--output", str(tmp_path / "nowhere" / "picture.png")])
    with pytest.raises(SystemExit):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"error: --output: no folder {tmp_path / 'nowhere'}\n")
