# Made by the build from config/keys.toml (config/generate.py).
from typing import Any

UNITS: dict[str, dict[str, float]]
BACKENDS: dict[str, str | None]
OPTIONAL: tuple[str, ...]
KEYS: tuple[dict[str, Any], ...]
