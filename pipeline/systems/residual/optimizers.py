"""Adam with decoupled decay and a cosine to zero, for each of the residual networks."""

import keras

from pipeline.params import Residual

WARM_UP = 100  # steps, at most a tenth of all
BETA_2 = 0.99
CLIP = 1.0  # the gradient's norm over all variables of a network


def build_optimizers(
    model: keras.Model, settings: Residual, adam: type[keras.optimizers.Adam] = keras.optimizers.Adam
) -> dict[str, keras.optimizers.Adam]:
    """An optimizer for each part of network.build's model, by the part's name, its variables made."""
    warm_up = min(WARM_UP, settings.steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, settings.steps - warm_up, warmup_target=settings.learning_rate, warmup_steps=warm_up
    )
    # One for each part: the rim's few examples have large gradients, which would clip the U-Net's.
    optimizers = {}
    for name in ("unet", "rim"):
        optimizer = adam(rate, beta_2=BETA_2, weight_decay=settings.weight_decay, global_clipnorm=CLIP)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.build(model.get_layer(name).trainable_variables)
        optimizers[name] = optimizer
    return optimizers
