"""The errors that users meet most often: how to provoke each, and what its text must say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import transferq
from transferq import errors
from transferq._impl.calls import run

from .provoked import (
    MIB,
    Scene,
    altered,
    another_version,
    at,
    busy,
    claim,
    cleared,
    closed,
    config_file,
    cut,
    directory,
    ended,
    forgotten,
    forked,
    full,
    loaded,
    lost,
    mixed,
    nobody,
    not_ready,
    padded,
    redis_full,
    strict,
    unpickled,
)
from .waiting import wait_until


@dataclass(frozen=True)
class Case:
    """One error.  `thing`, `value`, `limit` and `remedy` are expressions that must match its text."""

    name: str
    provoke: Callable[[Scene], Any]
    kind: type[Exception] | None  # None: a program's text
    thing: str
    value: str
    limit: str
    remedy: str
    slow: bool = False

    def misses(self, text: str) -> list[str]:
        """Which of the four are missing from the text."""
        parts = {
            "thing": self.thing,
            "value": self.value,
            "limit": self.limit,
            "remedy": self.remedy,
        }
        return [part for part, wanted in parts.items() if not re.search(wanted, text)]


TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


def unknown_partition(
    name: str, provoke: Callable[[Scene], Any], kind: type[Exception] | None
) -> Case:
    """A partition that does not exist, in any kind of call."""
    there = r"there (is|are) .*'train'"
    return Case(
        name,
        provoke,
        kind,
        "partition",
        "'trian'",
        there,
        "nothing was put into it, or it was cleared",
    )


def read_until_refused(client: Any, meta: Any) -> None:
    """Reads until the unit has freed the former data, which a read may still find."""
    both = transferq.BatchMeta.concat([meta, meta])
    wait_until("the former data is freed", lambda: client.get_data(both) is None)


def of_before_a_load(name: str, use: Callable[[Any, Any], Any]) -> Case:
    """Use of metadata obtained before a checkpoint was loaded."""
    return Case(
        name,
        lambda s: loaded(s, use),
        errors.ClearedError,
        "partition 'reloaded'",
        r"samples \d+, \d+",
        f"checkpoint was loaded at {TIME}",
        "claim or resolve the samples again",
    )


PUT = {"x": np.arange(2)}
CASES = [
    # what is put
    Case(
        "a partition where metadata belongs",
        lambda s: s.client.put(PUT, "train"),  # type: ignore[arg-type]
        errors.ArgumentTypeError,
        "metadata", "'train'", "must be a BatchMeta", "did you mean partition_id='train'",
    ),
    Case(
        "columns of different lengths",
        lambda s: s.client.put({"x": np.arange(2), "y": np.arange(3)}, partition_id="p"),
        errors.RowCountError,
        "field 'y'", "got 3", "2 rows", "expected 2 rows",
    ),
    Case(
        "rows that the metadata has not",
        lambda s: s.client.put({"y": np.arange(3)}, metadata=s.meta),
        errors.RowCountError,
        "put", "got 3", "4 rows", "one per sample of the metadata",
    ),
    Case(
        "no rows",
        lambda s: s.client.put({"y": np.arange(0)}, partition_id="p"),
        errors.RowCountError,
        r"\['y'\]", "0 rows", "at least 1", "leave the call out",
    ),
    Case(
        "a name that is too long",
        lambda s: s.client.put({"n" * 1100: np.arange(2)}, partition_id="p"),
        errors.NameLengthError,
        "field name 'nnn", "1100 bytes", "at most 1023", "use a shorter one",
    ),
    Case(
        "another dtype in a strict field",
        strict,
        errors.DtypeError,
        "field 'x' of partition 'p'", "given are float64", "holds int64", "convert the rows.*strict_schema",
    ),
    Case(
        "a value for pickle where that is off",
        unpickled,
        errors.SerializationError,
        "field 'x'", r"builtins\.object", "allow_pickle forbids", "put plain values.*or allow it",
    ),
    # names
    unknown_partition(
        "an unknown partition",
        lambda s: (s.meta, s.client.get_meta(["x"], 2, "trian", mode="force_fetch")),
        errors.UnknownPartitionError,
    ),
    unknown_partition(
        "an unknown partition, of tq",
        lambda s: (s.meta, s.program("tq", "get", "trian", address=s.system.address))[1],
        None,
    ),
    Case(
        "an unknown field",
        lambda s: s.meta.select_fields(["x", "typo"], strict=True),
        errors.UnknownFieldError,
        "fields of the metadata", r"\['typo'\]", r"there are \['t', 'x'\]", "there are",
    ),
    Case(
        "an unknown key",
        lambda s: run(s.client._kv_batch_get(["a"], (s.meta, "train")[1], ["x"], strict=True)),
        errors.UnknownKeyError,
        "partition 'train'", r"\['a'\]", "1 of 1 keys", "tq ls train",
    ),
    # claims
    Case(
        "a claim of -1 samples",
        lambda s: s.client.get_meta(["x"], -1, "train", task_name="t"),
        errors.ClaimSizeError,
        "batch size", "-1", "at least 1", "must be at least 1",
    ),
    Case(
        "a claim without a task",
        lambda s: s.client.get_meta(["x"], 1, "train"),
        errors.InvalidArgumentError,
        "task_name", "got None", "expected the name of the task", "mode='force_fetch'",
    ),
    Case(
        "a claim that times out",
        lambda s: claim(s, "x", "rewrad"),
        errors.TimedOutError,
        "partition 'train' by task 't'", r"0 ready after \d+ ms", "claim of 2 samples", r"\['rewrad'\] \(misspelt\?\)",
    ),
    Case(
        "an unknown mode",
        lambda s: s.client.get_meta(["x"], 2, "train", mode="fecth", task_name="t"),
        errors.InvalidArgumentError,
        "mode", "'fecth'", "insert, fetch or force_fetch", "expected insert",
    ),
    Case(
        "an unknown sampler",
        lambda s: claim(s, "x", sampler="GRPO"),
        errors.UnknownSamplerError,
        "sampler", "'GRPO'", "there are SequentialSampler, GRPOGroupNSampler", "there are",
    ),
    Case(
        "an unknown key of a sampler",
        lambda s: claim(s, "x", n_sample=2),
        errors.InvalidArgumentError,
        "sampling_config", "'n_sample'", "SequentialSampler knows batch_index", "knows .*n_samples_per_prompt",
    ),
    Case(
        "a group of no samples",
        lambda s: claim(s, "x", sampler="GRPOGroupNSampler", n_samples_per_prompt=0),
        errors.InvalidArgumentError,
        "sampling_config: n_samples_per_prompt", "got 0", "from 1 to 4294967295", "expected a whole number",
    ),
    Case(
        "a batch that is no multiple of the group",
        lambda s: claim(s, "x", sampler="GRPOGroupNSampler", n_samples_per_prompt=3),
        errors.InvalidArgumentError,
        "batch_size", r"\(2\)", r"n_samples_per_prompt \(3\)", "must be a multiple of",
    ),
    Case(
        "a rank that is not there",
        lambda s: claim(s, "x", sampler="RankAwareSampler"),
        errors.InvalidArgumentError,
        "RankAwareSampler", "needs dp_rank", "from 0", "the place of the caller among those who share",
    ),
    Case(
        "a rank below 0",
        lambda s: claim(s, "x", sampler="RankAwareSampler", dp_rank=-1),
        errors.InvalidArgumentError,
        "dp_rank", "got -1", "greater than or equal to 0", "expected a whole number",
    ),
    Case(
        "a setting of a sampler that is no plain value",
        lambda s: claim(s, "x", temperature=object()),
        errors.InvalidArgumentError,
        "sampling_config: 'temperature'", "type object", "numbers, text, lists and maps", "expected numbers",
    ),
    # reading
    Case(
        "fields that are not ready",
        not_ready,
        errors.NotReadyError,
        "partition 'half'", r"field 'y' of samples \d+, \d+", "not ready", "claim them, which waits",
    ),
    Case(
        "an unknown layout",
        lambda s: s.client.get_data(s.meta, layout="pad"),
        errors.InvalidArgumentError,
        "layout", "'pad'", "jagged, dense or padded", "expected jagged",
    ),
    Case(
        "an unknown setting of padding",
        lambda s: padded(s, {"vlaue": 1}),
        errors.InvalidArgumentError,
        "padding of field 'r'", "'vlaue'", "value, multiple, length, lengths, mask", "expected a number or a map",
    ),
    Case(
        "a name for lengths that a field has",
        lambda s: padded(s, {"lengths": "q"}, name="q"),
        errors.InvalidArgumentError,
        "padding of field 'q'", "field 'q'", "already", "another name",
    ),
    Case(
        "rows that cannot be padded together",
        mixed,
        errors.InvalidArgumentError,
        "field 'm'", "1 and 2 dims", "cannot be padded together", "layout jagged",
    ),
    # data that is gone
    Case(
        "samples that were cleared",
        cleared,
        errors.ClearedError,
        "partition 'gone'", r"samples \d+, \d+, \d+, \d+, \d+ and 1 more", "6 of 7", "claim or resolve",
    ),
    of_before_a_load(
        "a put to samples of before a load",
        lambda client, meta: client.put({"y": np.arange(2)}, metadata=meta),
    ),
    of_before_a_load(
        "a read of samples of before a load",
        read_until_refused,
    ),
    Case(
        "a partition of before a load",
        forgotten,
        errors.UnknownPartitionError,
        "partition", "'later'", "there are", "nothing was put into it, or it was cleared",
    ),
    Case(
        "data that was lost",
        lost,
        errors.LostError,
        "partition 'train'", r"field 'x' of samples? \d+", "lost with their storage", "put them again, or load a checkpoint",
    ),
    Case(
        "metadata of another system",
        lambda s: s.other.client().get_data(s.meta),
        errors.StaleError,
        "metadata", "epoch [0-9a-f]{16}, now [0-9a-f]{16}", f"restarted at {TIME}", "claim or resolve the samples again",
    ),
    # room
    Case(
        "storage that stays full",
        full,
        errors.StorageFullError,
        "unit 'unit-0'", f"{40 * MIB} bytes wanted", f"of {64 * MIB} are used", "clear samples, or start the system with",
    ),
    Case(
        "a batch that never fits",
        lambda s: s.client.put({"b": np.zeros((1, 100 * MIB), np.uint8)}, partition_id="p"),
        errors.StorageFullError,
        "unit 'unit-0'", f"{100 * MIB} bytes", f"of {64 * MIB} bytes", "put fewer samples at once",
    ),
    Case(
        "a Redis that is full",
        redis_full,
        errors.StorageFullError,
        r"Redis at 127\.0\.0\.1:\d+", r"uses \d+ of", f"maxmemory {16 * MIB}", "clear samples, or raise the server's maxmemory",
    ),
    # connections
    Case(
        "a wrong token",
        lambda s: at(s, s.system.address, s.other.token_file),
        errors.AuthenticationError,
        "unix:.*controller.sock", "of .*other/run/token", "is not the server's", "use the token file of the system that runs now",
    ),
    Case(
        "a token file that is not there",
        lambda s: at(s, s.system.address, "/nonexistent/token"),
        errors.AuthenticationError,
        "token file", "'/nonexistent/token'", "No such file", "the file token in its runtime directory",
    ),
    Case(
        "an address where nobody listens",
        lambda s: at(s, nobody()),
        errors.UnreachableError,
        r"tcp:127\.0\.0\.1:\d+ cannot be reached", "Connection refused", r"for [56]\.\d s", "check the address, and that the system runs",
        slow=True,
    ),
    Case(
        "a host that is not known",
        lambda s: at(s, "tcp:no.such.host.invalid:5"),
        errors.UnreachableError,
        "cannot be reached", r"no\.such\.host\.invalid", "look-up of the name", "check the host's spelling",
    ),
    Case(
        "an address without its kind",
        lambda s: at(s, "127.0.0.1:5"),
        errors.InvalidArgumentError,
        "endpoint", r"'127\.0\.0\.1:5'", "neither unix: nor tcp:", "tcp:HOST:PORT and unix:/PATH",
    ),
    Case(
        "a port that is taken",
        busy,
        None,
        "cannot listen on tcp:", r"127\.0\.0\.1:\d+", "Address already in use", "port 0 for a free one",
    ),
    Case(
        "a client that was closed",
        closed,
        errors.ClosedError,
        "client", "is closed", "is closed", "open another one",
    ),
    Case(
        "a controller of another version",
        another_version,
        errors.ProtocolVersionError,
        "the server",
        r"speaks version \d+",
        r"this client version \d+",
        "this client is older",
    ),
    Case(
        "an operation of the parent process",
        forked,
        None,
        "ClosedError: the operation",
        r"process \d+",
        "belongs to the parent process",
        "start one in this process",
    ),
    Case(
        "a system that has ended",
        ended,
        errors.SystemEndedError,
        "system 'default'", "SIGTERM", "has ended", r"call init\(\), or open a new client",
    ),
    Case(
        "a module that was not initialised",
        lambda s: transferq.get_client(),
        errors.ClosedError,
        "this process", "attached to no system", "attached to no system", r"call transferq\.init\(\) first",
    ),
    # checkpoints
    Case(
        "a checkpoint that is not there",
        lambda s: run(s.client._load_checkpoint("/nonexistent/checkpoint")),
        FileNotFoundError,
        "checkpoint directory", "/nonexistent/checkpoint", "there is no", "as save_checkpoint makes one",
    ),
    Case(
        "a checkpoint that was cut off",
        lambda s: s.damaged("cut", cut),
        errors.CheckpointError,
        r"checkpoint /.*/cut: data\.bin", r"has \d+ bytes", r"the manifest says \d+", "load another checkpoint",
    ),
    Case(
        "a checkpoint that was altered",
        lambda s: s.damaged("altered", altered),
        errors.CheckpointError,
        r"checkpoint /.*/altered: data\.bin", "its sum is [0-9a-f]{32}", "the manifest says [0-9a-f]{32}", "load another checkpoint",
    ),
    Case(
        "a checkpoint without a file",
        lambda s: s.damaged("part", lambda path: (path / "state.bin").unlink()),
        errors.CheckpointError,
        r"checkpoint /.*/part", r"state\.bin", "it is missing", "load another checkpoint",
    ),
    Case(
        "a directory of somebody's in a checkpoint's place",
        directory,
        errors.ExistsError,
        "directory /.*/somebody's", "has files", "not a checkpoint's", "name one that is empty, new",
    ),
    # configuration
    Case(
        "an unknown key of the configuration",
        lambda s: transferq.init({"controler": {}}),
        errors.ConfigError,
        "key", "'controler'", "unknown", "did you mean 'controller'",
    ),
    Case(
        "a size that is none",
        lambda s: transferq.init({"backend": {"SimpleStorage": {"total_storage_size": "12XB"}}}),
        errors.ConfigError,
        "total_storage_size", "'12XB'", '"8GiB", "25%"', "expected a size",
    ),
    Case(
        "an unknown backend",
        lambda s: transferq.init({"backend": {"storage_backend": "Nope"}}),
        errors.UnknownManagerError,
        r"backend\.storage_backend", "'Nope'", "known are: SimpleStorage, Redis", "must be registered before init",
    ),
    Case(
        "a key of tqd's that is unknown",
        config_file,
        None,
        r"tqd\.yaml:2", r"'controller\.sampelr'", "unknown key", "tqd --help-config",
    ),
    Case(
        "a number of tqd's that is out of range",
        lambda s: s.daemon("--set", "backend.SimpleStorage.total_storage_size=4KiB"),
        None,
        "total_storage_size", "4KiB", r"at least 1 ?MiB", "is out of range",
    ),
    Case(
        "an unknown role of tqd's",
        lambda s: s.program("tqd", "everything"),
        None,
        "role", "'everything'", "controller, storage and all-in-one", "--help",
    ),
    Case(
        "a runtime directory that is in use",
        lambda s: s.program("tqd", "all-in-one", "--runtime-dir", str(s.system.runtime)),
        None,
        "runtime directory", "/one/run", "belongs to a running system", "name another one",
    ),
    Case(
        "no system for tq",
        lambda s: s.program("tq", "status"),
        None,
        "system 'default'", "TQ_ADDRESS is not set", r"no handle /.*handle\.json", "start one with `tq serve`",
    ),
    Case(
        "an unknown command of tq's",
        lambda s: s.program("tq", "statsu"),
        None,
        "command", "'statsu'", "unknown command.*there are .*status", "tq --help",
    ),
]  # fmt: skip
