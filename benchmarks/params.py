"""Settings of a benchmark."""

import yaml

from pipeline import paths


def set_params(section: str, **changes: object) -> None:
    """Change settings of params.yaml here."""
    content = yaml.safe_load(paths.PARAMS.read_text(encoding="utf-8"))
    content[section] |= changes
    paths.PARAMS.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
