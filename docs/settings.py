"""Writes settings.md from the fields of vamp_jax/config_fields.py: python docs/settings.py."""

import math
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from vamp_jax import outside  # noqa: E402
from vamp_jax.config_fields import FIELDS, Field  # noqa: E402

HEAD = """# Every field of a config

Made by `python docs/settings.py` from `vamp_jax/config_fields.py`; not to be edited. A field is
set on the command line, `--config.FIELD=VALUE`, or in a file of `configs/`. What depends on the
data (K, the learning rate, how dense weights start, and `latent_dim` of the digits) is in
`vamp_jax/default_config.py`: the digits have K = 100, 8 latent units and `glorot`.
`module:Name` is [a part of your own](extending.md#parts-of-your-own).

| field | default | may be | what it is |
|---|---|---|---|
"""


def render() -> str:
    """Returns the text of settings.md."""
    rows = [
        f"| `{name}` | {_shown(field.default)} | {_range(name, field)} | {_meaning(field)} |"
        for name, field in FIELDS.items()
    ]
    return HEAD + "\n".join(rows) + "\n"


def _shown(value) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _range(name: str, field: Field) -> str:
    if field.choices:
        listed = ", ".join(f"`{choice}`" for choice in field.choices)
        return f"{listed}, `module:Name`" if name in outside.FIELDS else listed
    if isinstance(field.default, bool):
        return "`true`, `false`"
    least = f"at least {field.least}" if field.least > -math.inf else ""
    above = f"above {field.above}" if field.above > -math.inf else ""
    if isinstance(field.default, str):
        return "a name or a path"
    below = f"below {field.below:g}" if field.below < 2**10 else ""
    kind = "whole, " if isinstance(field.default, int) else ""
    return kind + (", ".join(filter(None, (least, above, below))) or "any number")


def _meaning(field: Field) -> str:
    text = field.doc.replace("|", r"\|")  # or it would end the cell
    if not field.only_with:
        return text
    other, values = field.only_with
    others = tuple(choice for choice in FIELDS[other].choices if choice not in values)
    word, listed = ("Only with", values) if len(values) <= len(others) else ("Not with", others)
    return f"{text} {word} `{other}` {' or '.join(f'`{value}`' for value in listed)}."


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(render(), encoding="utf-8")
