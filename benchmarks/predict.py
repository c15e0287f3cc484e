"""200 test images filled: the predict stage with a model of the full size."""

from benchmarks.measure import main
from pipeline import paths, predict
from pipeline.models import pix2pix
from pipeline.params import load_params
from pipeline.training import loop
from pipeline.training.card import write_card


def prepare() -> None:
    """Untrained weights: how fast they fill does not depend on what they learned."""
    settings = load_params().train
    paths.MODEL.mkdir()
    training = loop.begin(settings)
    training.generator.save_weights(paths.MODEL / "best.weights.h5")
    write_card(paths.MODEL, model="pix2pix", settings=settings.model_dump(), normalisation=pix2pix.NORMALISATION)


if __name__ == "__main__":
    main({"prepare": prepare, "ours": predict.main})
