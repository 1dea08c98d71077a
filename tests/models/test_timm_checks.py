"""What timm's own test suite asks of every model, asked of ours: widths as published, one block a stage.

Checks of timm 1.0.31's ``tests/test_models.py``, restated.
"""

from pathlib import Path
from typing import Any

import elsa_ext
import pytest
import timm
import torch
from timm.models import get_notrace_functions, get_notrace_modules
from timm.models._input import get_model_input_config
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

SHALLOW = {"elsa_swin_micro": {"depths": (1, 1, 1)}}
SHALLOW |= {f"elsa_swin_{size}": {"depths": (1, 1, 1, 1)} for size in ("tiny", "small", "base")}
SHALLOW |= {f"elsa_volo_d{size}": {"layers": (1, 1, 1, 1)} for size in range(1, 6)}
# Two widths of a family for `make test`, all for `make test-all`.
every_model = pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("elsa_swin_micro", "elsa_swin_tiny", "elsa_volo_d1", "elsa_volo_d2")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in SHALLOW
    ],
)
# A model of each family is enough for what does not depend on widths, and is slow.
one_of_each = pytest.mark.parametrize("name", ["elsa_swin_micro", "elsa_volo_d1"])


def create(name: str, **arguments: Any) -> nn.Module:
    return timm.create_model(name, **SHALLOW[name], **arguments)


def images(name: str, batch: int) -> Tensor:
    return torch.randn(batch, 3, *((32, 32) if name == "elsa_swin_micro" else (96, 128)))


def test_every_model_is_checked() -> None:
    assert sorted(SHALLOW) == timm.list_models("elsa_*")


@pytest.mark.thorough
@every_model
def test_forward_with_and_without_checkpointing(name: str) -> None:
    model = create(name).eval()
    given = images(name, 1)
    logits = model(given)
    assert logits.shape == (1, model.default_cfg["num_classes"])
    assert not logits.isnan().any()
    model.set_grad_checkpointing()
    torch.testing.assert_close(model(given), logits, rtol=1e-4, atol=1e-5)


@one_of_each
def test_channels_last(name: str) -> None:
    model = create(name).eval()
    given = images(name, 2)
    logits = model(given)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(given.to(memory_format=torch.channels_last)), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@every_model
def test_backward_reaches_every_parameter(name: str) -> None:
    model = create(name, num_classes=42).train()
    logits = model(images(name, 2))
    assert logits.shape == (2, 42)
    logits.mean().backward()
    assert [n for n, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.thorough
@every_model
def test_default_cfg(name: str) -> None:
    model = create(name).eval()
    state_dict, cfg = model.state_dict(), model.default_cfg
    given = torch.randn(1, *cfg["input_size"])
    features = model.forward_features(given)
    channels = features.shape[-1]
    if cfg["pool_size"] is not None:
        assert features.shape[1:3] == cfg["pool_size"]
    assert channels == model.num_features
    before_logits = model.forward_head(features, pre_logits=True)
    assert before_logits.shape == (1, model.head_hidden_size)

    model.reset_classifier(0)
    assert model.num_classes == 0
    torch.testing.assert_close(model(given), before_logits)
    if cfg["pool_size"] is not None:
        model.reset_classifier(0, "")
        torch.testing.assert_close(model(given), features)
        bare = create(name, num_classes=0, global_pool="").eval()
        assert bare(given).shape == features.shape
    assert create(name, num_classes=0).eval()(given).shape == before_logits.shape

    assert get_model_input_config(model)["fixed_input_size"] is False
    classifiers = cfg["classifier"] if isinstance(cfg["classifier"], tuple) else (cfg["classifier"],)
    for layer in (*classifiers, cfg["first_conv"]):
        assert f"{layer}.weight" in state_dict


@pytest.mark.filterwarnings("ignore::UserWarning")  # of timm's resize of relative position tables
@pytest.mark.parametrize("name", ["elsa_swin_tiny", "elsa_volo_d1"])
def test_weights_of_another_image_size(name: str, tmp_path: Path) -> None:
    trained = create(name, num_classes=3)
    torch.save(trained.state_dict(), tmp_path / "weights.pth")
    source = {"file": str(tmp_path / "weights.pth"), "num_classes": 3}
    loaded = create(name, num_classes=3, pretrained=True, pretrained_cfg_overlay=source, img_size=(128, 96)).eval()
    again = create(name, num_classes=3, pretrained=True, pretrained_cfg_overlay=source)
    assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in trained.state_dict().items())
    trained.eval().set_input_size((128, 96))
    given = torch.randn(1, 3, 128, 96)
    torch.testing.assert_close(loaded(given), trained(given))


def assert_like_the_feature_info(maps: list[Tensor], info: Any, given: Tensor, channels_last: bool) -> None:
    assert len(maps) == len(info.channels())
    for taken, channels, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        taken = taken.movedim(-1, 1) if channels_last else taken
        size = tuple(-(-side // reduction) for side in given.shape[-2:])
        assert taken.shape == (len(given), channels, *size)
        assert not taken.isnan().any()


@pytest.mark.thorough
@every_model
@pytest.mark.parametrize("feature_cls", [None, "getter"])
def test_features_only(name: str, feature_cls: str | None) -> None:
    model = create(name, features_only=True, feature_cls=feature_cls).eval()
    given = images(name, 1)
    channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
    assert_like_the_feature_info(model(given), model.feature_info, given, channels_last)


@every_model
def test_forward_intermediates(name: str) -> None:
    model = create(name).eval()
    given = images(name, 1)
    out, maps = model.forward_intermediates(given)
    info = timm.models.FeatureInfo(model.feature_info, len(model.feature_info))
    assert_like_the_feature_info(maps, info, given, channels_last=False)
    assert torch.equal(out, model.forward_features(given))
    model.set_grad_checkpointing()
    torch.testing.assert_close(model.forward_intermediates(given)[0], out, rtol=1e-4, atol=1e-5)


def traced(model: nn.Module) -> nn.Module:
    tracing = {
        "leaf_modules": get_notrace_modules(),
        "autowrap_functions": get_notrace_functions(),
        "param_shapes_constant": True,
    }
    train_nodes, eval_nodes = get_graph_node_names(model, tracer_kwargs=tracing)
    return create_feature_extractor(
        model, train_return_nodes=train_nodes[-1:], eval_return_nodes=eval_nodes[-1:], tracer_kwargs=tracing
    )


# torchvision's tracer and TorchScript warn of what is theirs.
ignore_warnings = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


@pytest.mark.thorough
@ignore_warnings
@every_model
def test_traced_forward(name: str) -> None:
    model = create(name).eval()
    given = images(name, 1)
    (logits,) = traced(model)(given).values()
    assert torch.equal(logits, model(given))


@ignore_warnings
@one_of_each
@pytest.mark.parametrize("train", [False, True])
def test_tracers_that_know_nothing_of_timm(name: str, train: bool) -> None:
    model = create(name, drop_path_rate=0.0).train(train)
    given = images(name, 2)
    taken = dict(model.named_modules())
    block = next(key for key, module in taken.items() if isinstance(module, elsa_ext.nn.ELSABlock))
    extractor = create_feature_extractor(model, {block: "block", "norm": "norm"}, suppress_diff_warning=True)
    seen: dict[str, Tensor] = {}
    for key, module in (("block", taken[block]), ("norm", taken["norm"])):
        module.register_forward_hook(lambda module, args, out, key=key: seen.update({key: out}))
    logits = model(given)
    # A block's last step is what torchvision takes for its output.
    found = extractor(given)
    assert found.keys() == {"block", "norm"}
    assert all(torch.equal(tensor, seen[key]) for key, tensor in found.items())
    graph = torch.fx.symbolic_trace(model)
    assert torch.equal(graph(given), logits)
    other = torch.cat([given, given[..., :32]], -1)
    assert torch.equal(graph(other), model(other))


@ignore_warnings
@one_of_each
def test_traced_backward(name: str) -> None:
    model = create(name, num_classes=42).train()
    (logits,) = traced(model)(images(name, 2)).values()
    assert logits.shape == (2, 42)
    logits.mean().backward()
    assert [n for n, parameter in model.named_parameters() if parameter.grad is None] == []


@ignore_warnings
@one_of_each
@pytest.mark.parametrize("trace", [False, True])
def test_scripted(name: str, trace: bool) -> None:
    with timm.set_scriptable(True):
        model = create(name).eval()
    given = images(name, 2)
    scripted = torch.jit.script(traced(model) if trace else model)
    out = scripted(given)
    (logits,) = out.values() if trace else (out,)
    torch.testing.assert_close(logits, model(given))
