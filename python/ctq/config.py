"""The configuration: packaged defaults (config.yaml), what the system runs with, what init() was given.

A map, a path of a YAML file and an OmegaConf are accepted.  An unknown key, a value of the wrong kind, or a
key that asks for something this system does not do is a ConfigError that names the key, and the file with the
line.  Programs that import the package by the name transfer_queue have keys of their own in their
configurations: there an unknown key is warned about once, and what a stock configuration of such a program
says is taken without a word.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ConfigError, InvalidArgumentError

logger = logging.getLogger("ctq")

SAMPLE_COUNT_LIMIT = 1 << 24
"""Numbers below this, as total_storage_size, are counts of samples."""


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


def of_map(value: Any) -> Any:
    """The value with every map in it made a Config."""
    if isinstance(value, Mapping):
        return Config({str(key): of_map(entry) for key, entry in value.items()})
    return [of_map(entry) for entry in value] if isinstance(value, list) else value


# --- where it comes from --------------------------------------------------------------------------


def defaults() -> Config:
    """The packaged defaults."""
    return copy.deepcopy(_defaults())


@functools.cache
def _defaults() -> Config:
    from importlib import resources

    loaded: Config = of_map(
        _parse(resources.files(__package__).joinpath("config.yaml").read_text("utf-8"))
    )
    return loaded


def _parse(text: str) -> Any:
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read(conf: Any) -> Config:
    """What init() was given, checked; samplers are replaced by their names."""
    if conf is None:
        return Config()
    file = None
    if isinstance(conf, (str, os.PathLike)):
        file = os.fspath(conf)
        conf = _read_file(file)
    elif not isinstance(conf, Mapping):
        conf = _read_omegaconf(conf)
    given: Config = of_map(conf)
    _name_sampler(given)
    unknown: list[str] = []
    _check(given, "", unknown)
    _refuse_unknown(unknown, file)
    return given


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
    """The configuration in the form of what was given: an OmegaConf for an OmegaConf."""
    if type(conf).__module__.partition(".")[0] != "omegaconf":
        return config
    from omegaconf import OmegaConf

    # What is no plain value (where the controller is) stays as it is.
    made: Config = OmegaConf.create(_plain(config), flags={"allow_objects": True})
    return made


def _plain(value: Any) -> Any:
    """The opposite of `of_map`."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list) else value


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Config:
    """Both; where both have an entry that is no map, that of `over`."""
    merged = Config(base)
    for key, value in over.items():
        known = merged.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(known, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


# --- what may be in it ----------------------------------------------------------------------------


def _bool(value: Any) -> bool:
    return isinstance(value, bool)


def _bool_or_none(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _text_or_none(value: Any) -> bool:
    return value is None or _text(value)


def _texts_or_none(value: Any) -> bool:
    return value is None or _text(value) or (isinstance(value, list) and all(map(_text, value)))


def _map(value: Any) -> bool:
    return isinstance(value, Mapping)


def _map_or_none(value: Any) -> bool:
    return value is None or _map(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256


def _seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _seconds_or_none(value: Any) -> bool:
    return _seconds(value) or value == 0


def _duration(value: Any) -> bool:
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _size(value: Any) -> bool:
    if isinstance(value, str):
        return _parse_size(value) is not None
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100000


def _port(value: Any) -> bool:
    return _whole(value) and value <= 65535


def _off(value: Any) -> bool:
    return not value


def _off_section(value: Any) -> bool:
    return not value or (_map(value) and not value.get("enabled"))


def _lifetime(value: Any) -> bool:
    return value in ("job", "detached")


def _layout(value: Any) -> bool:
    from .reading import as_layouts

    return value is None or _accepts(as_layouts, value)


def _padding(value: Any) -> bool:
    from .reading import as_paddings

    return value is None or _accepts(as_paddings, value)


def _accepts(check: Callable[[Any], Any], value: Any) -> bool:
    try:
        check(value)
    except InvalidArgumentError:
        return False
    return True


def _any(_: Any) -> bool:
    return True


Check = tuple[Callable[[Any], bool], str]

_KEYS: dict[str, Check] = {
    "address": (_text_or_none, "an endpoint such as unix:/path or tcp:host:port"),
    "token_file": (_text_or_none, "the path of a file"),
    "controller.sampler": (_text, "the name of a sampler, or a sampler"),
    "controller.sampling_config": (_map, "a map"),
    "controller.polling_mode": (_bool, "true or false"),
    "controller.strict_schema": (_bool, "true or false"),
    "controller.zmq_info": (_any, ""),
    "controller.listen": (_texts_or_none, "an endpoint such as tcp:host:port, or a list of them"),
    "controller.session_grace": (_duration, "a number of seconds"),
    "controller.owner_timeout": (_duration, "a number of seconds"),
    "controller.events": (_positive, "a number above 0"),
    "controller.first_counters": (_any, ""),
    "backend.storage_backend": (_text, "the name of a storage manager"),
    "backend.SimpleStorage.total_storage_size": (
        _size,
        'a size such as "8GiB", "25%" or a number of bytes',
    ),
    "backend.SimpleStorage.num_data_storage_units": (_count, "a number from 1 to 256"),
    "backend.SimpleStorage.keep_warm": (_duration, "a number of seconds"),
    "backend.SimpleStorage.zmq_info": (_any, ""),
    "backend.SimpleStorage.required_node_resource": (
        _off,
        "null: placement by resource is not supported",
    ),
    "backend.SimpleStorage.ssd_offload": (
        _off_section,
        "enabled: false, for SSD offload is not supported",
    ),
    "backend.*": (_map_or_none, "a map"),
    "net.interface": (_text_or_none, "the name of a network interface"),
    "net.bind": (_text_or_none, "an address to listen at"),
    "net.advertise_host": (_text_or_none, "a host's name or address"),
    "net.port_range": (_text_or_none, 'ports such as "20000-20009"'),
    "storage.listen": (_texts_or_none, "an endpoint such as tcp:host:0, or a list of them"),
    "storage.advertise_host": (_text_or_none, "a host's name or address"),
    "storage.name": (_text_or_none, "a name"),
    "storage.node": (_text_or_none, "the name of a node"),
    "client.timeout": (_seconds, "a number of seconds above 0"),
    "client.wait_notice": (_seconds_or_none, "a number of seconds, or 0 for none"),
    "log.level": (_text_or_none, "error, warn, info or debug"),
    "client.layout": (_layout, "jagged, dense or padded, or a map of these by field"),
    "client.padding": (
        _padding,
        "a number, or a map from fields to a number or to value, multiple, length, lengths and mask",
    ),
    "client.pin_memory": (_bool, "true or false"),
    "serialization.allow_pickle": (_bool, "true or false"),
    "ray.actor": (_bool_or_none, "true, false or null"),
    "ray.cluster": (_bool_or_none, "true, false or null"),
    "ray.lifetime": (_lifetime, "job or detached"),
    "metrics.enabled": (_bool, "true or false"),
    "metrics.port": (_port, "a number from 0 to 65535"),
    "metrics.listen": (_text_or_none, "the name or address of a network interface"),
    "metrics.max_partitions": (_whole, "a number from 0 to 100000"),
    "metrics.endpoint": (_any, ""),
}
_SECTIONS = {
    "controller",
    "backend",
    "backend.SimpleStorage",
    "client",
    "log",
    "net",
    "storage",
    "serialization",
    "ray",
    "metrics",
}
_REPORTED = {
    "controller.zmq_info",
    "backend.SimpleStorage.zmq_info",
    "backend.SimpleStorage.ssd_offload",
    "metrics.endpoint",
}
"""Accepted, for init() returns some of them and the Python peer knows the others, and not passed on."""
_BACKENDS = {"MooncakeStore", "RayStore", "Yuanrong", "Redis"}
_BACKEND_KEYS = {
    "MooncakeStore": {
        "auto_init",
        "device_name",
        "gdr_staging_buffer_mb",
        "global_segment_size",
        "hard_pin",
        "local_buffer_size",
        "local_hostname",
        "master_server_address",
        "metadata_server",
        "offload",
        "protocol",
        "use_gdr",
    },
    "RayStore": {"address", "auto_init", "device", "holder", "tensor_transport"},
}
"""Keys of the backends in Python; Redis refuses those that it does not know."""
_HOSTS = {"enable"}
"""Keys of programs that hand their own configuration over: verl's says with `enable` whether it uses the queue."""
_warned: set[str] = set()


class _Host:
    """Whether the program was written for the package transfer_queue of PyPI."""

    keys_of_its_own = False


def allow_other_keys() -> None:
    """From now on unknown keys are warned about in this process, and not refused."""
    _Host.keys_of_its_own = True


def _refuse_unknown(unknown: list[str], file: str | None) -> None:
    """Refuse unknown keys, with what may have been meant."""
    if _Host.keys_of_its_own:
        for path in unknown:
            if path not in _HOSTS:
                _warn_once(path, f"configuration: unknown key {path!r} is ignored{_hint(path)}")
    elif unknown:
        where = "" if file is None else f"{file}{_line_of(file, unknown[0])}: "
        told = "; ".join(f"unknown key {path!r}{_hint(path)}" for path in unknown)
        raise ConfigError(f"{where}{told}")


def _hint(path: str) -> str:
    """What may have been meant by an unknown key."""
    import difflib

    if path in _HOSTS:
        return ", which is for the program that hands it over: leave it out"
    section, _, name = path.rpartition(".")
    beside = _known_in(section)
    close = difflib.get_close_matches(name, beside, 1)
    if close:
        return f", did you mean {close[0]!r}?"
    elsewhere = [known for known in (*_KEYS, *_SECTIONS) if known.rpartition(".")[2] == name]
    if elsewhere:
        return f", did you mean {elsewhere[0]!r}?"
    return f"; {section or 'the configuration'} may have {', '.join(sorted(beside))}"


def _known_in(section: str) -> set[str]:
    """Keys that a section may have."""
    if section.startswith("backend.") and section.partition(".")[2] in _BACKEND_KEYS:
        return _BACKEND_KEYS[section.partition(".")[2]]
    prefix = f"{section}." if section else ""
    names = {known[len(prefix) :] for known in (*_KEYS, *_SECTIONS) if known.startswith(prefix)}
    found = {name.partition(".")[0] for name in names} - {
        "*",
        "zmq_info",
        "first_counters",
        "endpoint",
    }
    return found | _BACKENDS if section == "backend" else found


def _line_of(file: str, path: str) -> str:
    """The line of a file where a key is, with a colon; empty when it is not found."""
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
    """Whether a path (`section.key`) is that of a key with a value of its own."""
    return path in _KEYS and path not in _REPORTED


def _check(given: Mapping[str, Any], prefix: str, unknown: list[str]) -> None:
    for key, value in given.items():
        path = prefix + key
        if path in _SECTIONS:
            if value is not None and not isinstance(value, Mapping):
                raise ConfigError(f"{path}: expected a map, got {value!r}")
            _check(value or {}, path + ".", unknown)
            continue
        check = _KEYS.get(path)
        if check is None and prefix == "backend.":
            check = _KEYS["backend.*"]
            if _is_unknown_backend(key, given):
                unknown.append(path)
                continue
            unknown += _unknown_in_backend(key, value)
        if check is None:
            unknown.append(path)
        elif not check[0](value):
            raise ConfigError(f"{path}: expected {check[1]}, got {value!r}")


def _unknown_in_backend(name: str, section: Any) -> list[str]:
    if name not in _BACKEND_KEYS or not isinstance(section, Mapping):
        return []
    known = _BACKEND_KEYS[name]
    return [f"backend.{name}.{key}" for key in section if key not in known and key != "module"]


def _is_unknown_backend(name: str, backend: Mapping[str, Any]) -> bool:
    from .storage import StorageManagerFactory

    section = backend[name]
    return (
        name not in _BACKENDS
        and name != backend.get("storage_backend")
        and not StorageManagerFactory.knows(name)
        and not (isinstance(section, Mapping) and "module" in section)
    )


def _warn_once(what: str, message: str) -> None:
    if what not in _warned:
        _warned.add(what)
        logger.warning(message)


def _name_sampler(given: Config) -> None:
    """Put the name of a sampler, and what it was made with, in the place of the sampler."""
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
    """Say that a sampler of whole groups, given by its name alone, takes each sample for a group."""
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
    """What was given as the daemon's --set options, `section.key=JSON`."""
    import json

    options: dict[str, Any] = {}
    _collect(given, "", options)
    return [f"{path}={json.dumps(value)}" for path, value in options.items()]


def _collect(given: Mapping[str, Any], prefix: str, options: dict[str, Any]) -> None:
    for key, value in given.items():
        path = prefix + key
        if path in ("address", "token_file", "ray") or path in _REPORTED or value is None:
            continue
        if path in _SECTIONS:
            _collect(value, path + ".", options)
        elif path.endswith("total_storage_size"):
            size = _storage_size(value)
            if size is not None:
                options[path] = size
        elif path in _KEYS or prefix == "backend.":
            options[path] = value


def _storage_size(value: Any) -> str | int | None:
    if isinstance(value, str):
        return value
    if value < SAMPLE_COUNT_LIMIT:
        if _Host.keys_of_its_own:
            return None  # what the number means there, and what stock configurations have
        _warn_once(
            "total_storage_size",
            f"configuration: backend.SimpleStorage.total_storage_size: {value} is taken as a count of samples, "
            'which is not limited here; give bytes or a size such as "8GiB" to limit the memory',
        )
        return None
    return int(value)


def _parse_size(text: str) -> float | None:
    import re

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|B|[KMGT]i?B|)\s*", text, re.IGNORECASE)
    return float(match.group(1)) if match and float(match.group(1)) > 0 else None
