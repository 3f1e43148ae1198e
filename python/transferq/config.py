"""The configuration: packaged defaults (config.yaml), the running system's settings, the argument of init().

A map, the path of a YAML file and an OmegaConf are accepted.  An unknown key, a value of the wrong kind, or a
key that asks for something this system does not support is a ConfigError that names the key, and the file with
the line.  Programs that import the package under the name transfer_queue have their own keys in their
configurations: there, an unknown key is warned about once, and values from such a program's stock configuration
are accepted silently.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
from collections.abc import Mapping
from typing import Any

from ._impl.config_keys import BACKENDS, FOR_ALL_BACKENDS, OPTIONAL, SECTIONS, TABLE, Key, quantity
from .errors import ConfigError

logger = logging.getLogger("transferq")


class Config(dict[str, Any]):
    """A map whose entries can also be read as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the configuration has no {name!r}") from None

    def __deepcopy__(self, memo: dict[int, Any]) -> Config:
        return Config({key: copy.deepcopy(value, memo) for key, value in self.items()})

    def __reduce__(self) -> tuple[Any, ...]:
        return Config, (dict(self),)


def config_of_map(value: Any) -> Any:
    """Convert a value so that every map in it is a Config."""
    if isinstance(value, Mapping):
        return Config({str(key): config_of_map(entry) for key, entry in value.items()})
    return [config_of_map(entry) for entry in value] if isinstance(value, list) else value


# --- sources --------------------------------------------------------------------------------------


def defaults() -> Config:
    """The packaged defaults."""
    return copy.deepcopy(_defaults())


@functools.cache
def _defaults() -> Config:
    from importlib import resources

    loaded: Config = config_of_map(
        _parse(resources.files(__package__).joinpath("config.yaml").read_text("utf-8"))
    )
    return loaded


def _parse(text: str) -> Any:
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read(conf: Any) -> Config:
    """Check the argument of init(), and replace samplers by their names."""
    if conf is None:
        return Config()
    file = None
    if isinstance(conf, (str, os.PathLike)):
        file = os.fspath(conf)
        conf = _read_file(file)
    elif not isinstance(conf, Mapping):
        conf = _read_omegaconf(conf)
    given: Config = config_of_map(conf)
    _name_sampler(given)
    unknown: list[str] = []
    _check(given, "", unknown)
    _refuse_unknown(unknown, file)
    _as_numbers(given)
    return given


def _as_numbers(given: Mapping[str, Any]) -> None:
    """Convert the times that clients use to numbers; the daemon converts its own."""
    for key in TABLE.values():
        section, _, name = key.path.rpartition(".")
        values = given.get(section)
        if key.kind == "seconds" and "client" in key.read_by and values and name in values:
            values[name] = quantity("seconds", values[name])


def _read_file(path: str) -> Any:
    import yaml

    try:
        with open(path, encoding="utf-8") as file:
            loaded = _parse(file.read())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(loaded, Mapping):
        raise ConfigError(f"{path}: expected a map, got {type(loaded).__name__}")
    return loaded


def _read_omegaconf(conf: Any) -> Any:
    if type(conf).__module__.partition(".")[0] == "omegaconf":
        from omegaconf import OmegaConf

        plain = OmegaConf.to_container(conf, resolve=True)
        if isinstance(plain, Mapping):
            return plain
    raise ConfigError(
        f"the configuration must be a map, a path of a YAML file or an OmegaConf, got {type(conf).__name__}"
    )


def as_given(conf: Any, config: Config) -> Config:
    """Return the configuration in the form of the argument: an OmegaConf for an OmegaConf."""
    if type(conf).__module__.partition(".")[0] != "omegaconf":
        return config
    from omegaconf import OmegaConf

    # Values that are not plain (the location of the controller) stay as they are.
    made: Config = OmegaConf.create(_plain(config), flags={"allow_objects": True})
    return made


def _plain(value: Any) -> Any:
    """The inverse of `config_of_map`."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Config:
    """Merge two maps; entries of `over` win, unless both are maps."""
    merged = Config(base)
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(known, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


# --- valid content --------------------------------------------------------------------------------

SAMPLE_COUNT_LIMIT = TABLE["backend.SimpleStorage.total_storage_size"].counts_below
"""A total_storage_size below this is a count of samples."""

_HOSTS = {"enable"}
"""Keys of programs that pass their own configuration: verl's has `enable`, which says whether it uses the queue."""
_warned: set[str] = set()


class _Host:
    """Whether the program was written for PyPI's package transfer_queue."""

    keys_of_its_own = False


def allow_other_keys() -> None:
    """From now on, warn about unknown keys in this process instead of refusing them."""
    _Host.keys_of_its_own = True


def _refuse_unknown(unknown: list[str], file: str | None) -> None:
    """Refuse unknown keys, with suggestions."""
    if _Host.keys_of_its_own:
        for path in unknown:
            if path not in _HOSTS:
                _warn_once(path, f"configuration: unknown key {path!r} is ignored{_hint(path)}")
    elif unknown:
        where = "" if file is None else f"{file}{_line_of(file, unknown[0])}: "
        told = "; ".join(f"unknown key {path!r}{_hint(path)}" for path in unknown)
        raise ConfigError(f"{where}{told}")


def _hint(path: str) -> str:
    """What an unknown key may have been meant as."""
    import difflib

    if path in _HOSTS:
        return ", which is for the program that hands it over: leave it out"
    section, _, name = path.rpartition(".")
    beside = _known_in(section)
    close = difflib.get_close_matches(name, beside, 1)
    if close:
        return f", did you mean {close[0]!r}?"
    elsewhere = [known for known in (*TABLE, *SECTIONS) if known.rpartition(".")[2] == name]
    # Try the sections of backends last: a match there is the least likely.
    elsewhere.sort(key=lambda known: known.rpartition(".")[0] in OPTIONAL)
    if elsewhere:
        return f", did you mean {elsewhere[0]!r}?"
    return f"; {section or 'the configuration'} may have {', '.join(sorted(beside))}"


def _known_in(section: str) -> set[str]:
    """Keys that a section may contain."""
    prefix = f"{section}." if section else ""
    shown = [path for path, key in TABLE.items() if not key.hidden]
    below = {path[len(prefix) :] for path in (*shown, *SECTIONS) if path.startswith(prefix)}
    found = {path.partition(".")[0] for path in below}
    return found | set(BACKENDS) if section == "backend" else found


def _line_of(file: str, path: str) -> str:
    """The line of a key in a file, after a colon; empty if it is not found."""
    import yaml

    with open(file, encoding="utf-8") as text:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = None
    for name in path.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = [(key, value) for key, value in pairs if str(key.value) == name]
        if not found:
            return ""
        line, node = found[0][0].start_mark.line + 1, found[0][1]
    return "" if line is None else f":{line}"


def knows(path: str) -> bool:
    """Whether a path (`section.key`) is a key with a value, and takes effect."""
    return path in TABLE and TABLE[path].is_read


def _check(given: Mapping[str, Any], prefix: str, unknown: list[str]) -> None:
    for name, value in given.items():
        path = prefix + name
        key = TABLE.get(path)
        if path in SECTIONS:
            _check_map(path, value)
            _check(value or {}, path + ".", unknown)
        elif key is not None:
            if not key.accepts(value):
                raise ConfigError(f"{path}: expected {key.expects}, got {value!r}")
        elif prefix == "backend." and not _is_unknown_backend(name, given):
            _check_map(path, value)
        elif not (prefix[:-1] in OPTIONAL and name in FOR_ALL_BACKENDS):
            unknown.append(path)


def _check_map(path: str, value: Any) -> None:
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"{path}: expected a map, got {value!r}")


def _is_unknown_backend(name: str, backend: Mapping[str, Any]) -> bool:
    from .storage import StorageManagerFactory

    section = backend[name]
    return (
        name not in BACKENDS
        and name != backend.get("storage_backend")
        and not StorageManagerFactory.knows(name)
        and not (isinstance(section, Mapping) and "module" in section)
    )


def _warn_once(what: str, message: str) -> None:
    if what not in _warned:
        _warned.add(what)
        logger.warning(message)


def _name_sampler(given: Config) -> None:
    """Replace a sampler by its name and its constructor arguments."""
    controller = given.get("controller")
    if not isinstance(controller, Mapping) or controller.get("sampler") is None:
        return
    from .samplers import check_name, describe, to_import

    if isinstance(controller["sampler"], str):
        check_name(controller["sampler"])
        to_import(controller["sampler"])
        _warn_of_groups(controller)
        return
    name, settings = describe(controller["sampler"])
    given["controller"] = Config(controller, sampler=name)
    if settings:
        given["controller"]["sampling_config"] = Config(
            {**settings, **(controller.get("sampling_config") or {})}
        )


def _warn_of_groups(controller: Mapping[str, Any]) -> None:
    """Warn that a group sampler given only by name treats each sample as a group."""
    name = controller["sampler"]
    if name in ("GRPOGroupNSampler", "SeqlenBalancedSampler") and "n_samples_per_prompt" not in (
        controller.get("sampling_config") or {}
    ):
        _warn_once(
            f"controller.sampler: {name}",
            f"configuration: controller.sampler: {name} by its name makes groups of 1 sample, unless puts name groups "
            "(groups=) or claims say n_samples_per_prompt in their sampling_config; say it for all of them with "
            "controller.sampling_config: {n_samples_per_prompt: N}",
        )


# --- for the daemon -------------------------------------------------------------------------------


def settings(given: Mapping[str, Any]) -> list[str]:
    """The settings as --set options of the daemon, `section.key=JSON`."""
    import json

    options: dict[str, Any] = {}
    _collect(given, "", options)
    return [f"{path}={json.dumps(value)}" for path, value in options.items()]


def _collect(given: Mapping[str, Any], prefix: str, options: dict[str, Any]) -> None:
    for name, value in given.items():
        path = prefix + name
        key = TABLE.get(path)
        if value is None or path == "ray" or (key is not None and not _is_for_the_daemon(key)):
            continue
        if path in SECTIONS and path not in OPTIONAL:
            _collect(value, path + ".", options)
        elif path.endswith("total_storage_size"):
            size = _storage_size(value)
            if size is not None:
                options[path] = size
        elif key is not None or prefix == "backend.":
            options[path] = value


def _is_for_the_daemon(key: Key) -> bool:
    return key.is_read and key.scope != "search"


def _storage_size(value: Any) -> str | int | None:
    if isinstance(value, str):
        return value
    if value < SAMPLE_COUNT_LIMIT:
        if _Host.keys_of_its_own:
            return None  # as in TransferQueue, and in stock configurations
        _warn_once(
            "total_storage_size",
            f"configuration: backend.SimpleStorage.total_storage_size: {value} is taken as a count of samples, "
            'which is not limited here; give bytes or a size such as "8GiB" to limit the memory',
        )
        return None
    return int(value)
