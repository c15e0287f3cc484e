"""200 test images filled: the predict stage with models of the full size."""

from importlib import import_module

from benchmarks.measure import main
from pipeline import paths, predict
from pipeline.params import load_params
from pipeline.systems.card import write_card


def prepare() -> None:
    """Untrained weights: how fast they fill does not depend on what they learned."""
    params = load_params()
    for name in params.systems:
        system, settings, folder = import_module(f"pipeline.systems.{name}"), getattr(params, name), paths.MODELS / name
        folder.mkdir(parents=True)
        system.begin(settings, params.train.precision, 7).model.save_weights(folder / "best.weights.h5")
        write_card(
            folder,
            model=name,
            settings=settings.model_dump() | {"precision": params.train.precision, "threads": params.train.threads},
            normalisation=system.MODEL.NORMALISATION,
            parameters=0,
            devices="",
            validation=[0],
        )


if __name__ == "__main__":
    main({"prepare": prepare, "ours": predict.main})
