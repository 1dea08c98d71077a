"""``--pretrained``: weights of this package, of timm or of the official code for a model to begin with."""

import math
import pickle
import warnings

from timm.layers import resample_abs_pos_embed_nhwc
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from ...models.checkpoint import convert_official
from ...models.local import weights_of_windows
from ...models.state_dict import listed, read_state_dict
from ...nn import ELSA, LocalAttention
from ..errors import CommandError, describe

TABLE = "relative_position_bias_table"


def load_pretrained(model: nn.Module, path: str) -> str:
    """Give ``model`` the weights in a file, and say which of them it has not got.

    The classifier may be that of other classes, and a local operator may stand where the weights have another: what
    they have not then stays as it is. What depends on the size of windows or images is resampled.

    Raises:
        CommandError: The file cannot be read, or the weights are those of another model; nothing has changed.
    """
    own = model.state_dict()
    layers = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, ELSA | LocalAttention))
    try:
        given = read_state_dict("--pretrained", path, own)
    except (ValueError, OSError, pickle.UnpicklingError) as error:
        raise CommandError(describe(error)) from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's resampling warns of what it does itself
        given = renamed(model, given)
    given = {name: tensor for name, tensor in given.items() if name in own or not name.startswith(layers)}
    fits = {name: tensor for name, tensor in given.items() if name in own and tensor.shape == own[name].shape}
    free = (*classifier(model), *layers)
    missing = [name for name in own if name not in fits]
    odd = [name for name in (*missing, *(name for name in given if name not in own)) if not name.startswith(free)]
    odd += [name for name in missing if name in given and name.startswith(layers)]  # ELSA of another shape
    if odd or not fits:
        raise CommandError(
            f"--pretrained {path} does not fit the model: {listed(odd or missing)} "
            f"{'are' if len(odd or missing) > 1 else 'is'} missing, left over or of another shape"
        )
    model.load_state_dict({**own, **fits})
    rest = f"; as they were before: {listed(missing)}" if missing else ""
    return f"{len(fits)} of {len(own)} tensors from {path}{rest}"


def renamed(model: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of the official code as timm names them, and what depends on the size of images in the model's."""
    if isinstance(model, SwinTransformer):
        modules = {name for name, module in model.named_modules() if hasattr(module, TABLE)}
        converted = convert_official(given)
        fitting = {name: tensor for name, tensor in converted.items() if TABLE not in name or name[:-29] in modules}
        fitted: dict[str, Tensor] = checkpoint_filter_fn(fitting, model)
        return {**fitted, **from_windows(model, converted)}
    position, own = given.get("pos_embed"), model.state_dict().get("pos_embed")
    if position is not None and own is not None and position.ndim == own.ndim == 4:
        return {**given, "pos_embed": resample_abs_pos_embed_nhwc(position, own.shape[1:3])}
    return given


def from_windows(model: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of window attention as the model's local operators in its place have them, as far as they do."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        weight, table = (given.get(f"{name}.{part}") for part in ("qkv.weight", TABLE))
        if not isinstance(module, LocalAttention) or weight is None or table is None:
            continue
        if weight.shape != (3 * module.qkv.in_features, module.qkv.in_features):
            continue  # of a model of another width, which is told of
        side = (math.isqrt(len(table)) + 1) // 2
        weights = weights_of_windows(module, weight, given.get(f"{name}.qkv.bias"), table, (side, side))
        found |= {f"{name}.{part}": tensor for part, tensor in weights.items()}
    return found


def classifier(model: nn.Module) -> tuple[str, ...]:
    """Return how the names of the classifier's weights begin."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
