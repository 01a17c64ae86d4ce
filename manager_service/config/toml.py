import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any


def read_defaults(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read option values from a TOML file; keys are the options' long names, with - or _.

    Raises:
        ValueError: the file cannot be read, or has a key that is no option.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    found = {key.replace("-", "_"): value for key, value in values.items()}
    options = {name for name in known if not name.startswith("_")}
    if strange := sorted(set(found) - options):
        names = ", ".join(sorted(options))
        raise ValueError(f"{path} has the unknown key {strange[0]!r}; there are {names}")
    return {key: value if isinstance(value, bool) else str(value) for key, value in found.items()}
