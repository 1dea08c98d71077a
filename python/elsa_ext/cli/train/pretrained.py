"""``--pretrained``: weights of this package, of timm or of the official code for a model to begin with."""

import pickle
import warnings

from timm.layers import resample_abs_pos_embed_nhwc
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from ...models.checkpoint import convert_official
from ...models.state_dict import listed, read_state_dict
from ...nn import ELSA
from ..errors import CommandError, describe


def load_pretrained(model: nn.Module, path: str) -> str:
    """Give ``model`` the weights in a file, and say which of them it has not got.

    The classifier may be that of other classes, and ELSA may stand where the weights have other local attention: both
    then stay as they are. Tables of relative positions and position embeddings of another size are resampled.

    Raises:
        CommandError: The file cannot be read, or the weights are those of another model; nothing has changed.
    """
    own = model.state_dict()
    layers = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, ELSA))
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
        modules = {name for name, module in model.named_modules() if hasattr(module, "relative_position_bias_table")}
        table = "relative_position_bias_table"
        converted = convert_official(given)
        fitting = {name: tensor for name, tensor in converted.items() if table not in name or name[:-29] in modules}
        fitted: dict[str, Tensor] = checkpoint_filter_fn(fitting, model)
        return fitted
    position, own = given.get("pos_embed"), model.state_dict().get("pos_embed")
    if position is not None and own is not None and position.ndim == own.ndim == 4:
        return {**given, "pos_embed": resample_abs_pos_embed_nhwc(position, own.shape[1:3])}
    return given


def classifier(model: nn.Module) -> tuple[str, ...]:
    """Return how the names of the classifier's weights begin."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
