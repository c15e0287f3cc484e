"""200 test images filled: the stages match and predict, with models of the full size."""

from benchmarks.measure import main
from pipeline import match, paths, predict
from pipeline.base.files import sha256
from pipeline.params import load_params
from pipeline.systems import load_network
from pipeline.systems.card import write_card


def prepare() -> None:
    """Untrained weights: how fast they fill does not depend on what they learned."""
    params = load_params()
    shared = {"precision": params.train.precision, "threads": params.train.threads, "seed": params.train.seed}
    for name in params.systems:
        network, settings, folder = load_network(name), getattr(params, name), paths.MODELS / name
        folder.mkdir(parents=True)
        network.build(settings, "float32").save_weights(folder / "last.weights.h5")
        write_card(
            folder,
            model=name,
            parameters=0,
            devices="",
            settings=settings.model_dump() | shared,
            input_version=network.INPUT_VERSION,
            split=sha256(paths.SPLIT),
            best=None,
        )


if __name__ == "__main__":
    main({"prepare": prepare, "match": match.main, "ours": predict.main})
