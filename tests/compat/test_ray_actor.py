"""The actor through which Ray tools inspect the system."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import ray
import torch

import transferq as tq
from transferq.errors import ConfigError
from transferq.ray.actor import ACTOR_NAME, NAMESPACE, kill, wait_dead


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(namespace="tests", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def stop() -> Iterator[None]:
    yield
    tq.close()


def actor() -> Any:
    return ray.get_actor(ACTOR_NAME, namespace=NAMESPACE)


def no_actor() -> bool:
    try:
        actor()
    except ValueError:
        return True
    return False


def fill() -> None:
    tq.kv_batch_put(["a", "b"], "p", {"x": torch.ones(2, 3), "y": ["u", "v"]}, [{"v": 1}, {}])
    tq.kv_put("c", "p", {"x": torch.ones(3)})
    tq.get_client().get_meta(["x"], 2, "p", task_name="train")


def test_a_snapshot_tells_everything_of_a_partition() -> None:
    tq.init()
    fill()
    assert ray.get(actor().list_partitions.remote()) == ["p"]
    seen = ray.get(actor().get_partition_snapshot.remote("p"))
    a, b, c = (seen.keys_mapping[key] for key in "abc")
    x, y = (seen.field_name_mapping[name] for name in "xy")
    assert seen.global_indexes == {a, b, c}
    assert seen.revert_keys_mapping == {a: "a", b: "b", c: "c"}
    assert seen.custom_meta == {a: {"v": 1}}
    assert [seen.production_status[index, x] for index in (a, b, c)] == [1, 1, 1]
    assert [seen.production_status[index, y] for index in (a, b, c)] == [1, 1, 0]
    assert [seen.consumption_status["train"][index] for index in (a, b, c)] == [1, 1, 0]
    assert seen.field_schema["x"]["dtype"] == torch.float32
    counted = seen.get_statistics()
    assert counted["total_samples_num"] == 3
    assert counted["field_statistics"]["y"]["produced_samples"] == 2
    assert counted["consumption_statistics"]["train"]["consumption_progress"] == 2 / 3
    assert ray.get(actor().get_partition_index_range.remote("p")) == sorted([a, b, c])
    assert ray.get(actor().get_partition_snapshot.remote("nowhere")) is None


def test_a_partition_is_cleared_and_reset_through_it() -> None:
    tq.init()
    fill()
    indexes, consumed = ray.get(actor().get_consumption_status.remote("p", "train"))
    assert consumed.tolist() == [1, 1, 0]
    ray.get(actor().reset_consumption.remote("p", "train"))
    assert ray.get(actor().get_consumption_status.remote("p", "train"))[1].tolist() == [0, 0, 0]
    assert ray.get(actor().get_production_status.remote("p", ["y"]))[1].tolist() == [[1], [1], [0]]
    assert len(indexes) == 3
    ray.get(actor().clear_partition.remote("p"))
    assert tq.get_client().get_partition_list() == ray.get(actor().list_partitions.remote())
    assert tq.kv_list("p").get("p", {}) == {}
    with pytest.raises(ValueError, match="clear_consumption"):
        ray.get(actor().clear_partition.remote("p", clear_consumption=False))


def test_it_comes_with_init_and_goes_with_close() -> None:
    for _ in range(2):
        config = tq.init()
        assert ray.get(actor().get_config.remote()) == config
        tq.close()
        assert no_actor()


def test_it_is_not_made_where_it_is_not_wanted() -> None:
    tq.init({"ray": {"actor": False}})
    assert no_actor()


def actors_of_others(*names: str) -> list[Any]:
    """Actors of other systems, under the names that ours would have."""

    class Other:
        def address(self) -> str:
            return "unix:/elsewhere"

    kind = ray.remote(num_cpus=0)(Other)
    return [kind.options(name=name, namespace=NAMESPACE).remote() for name in names]


def test_the_actor_of_a_second_system_has_its_name(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (other,) = actors_of_others(ACTOR_NAME)
    monkeypatch.setenv("TQ_SYSTEM", "second")
    own = f"{ACTOR_NAME}:second"
    try:
        with caplog.at_level(logging.WARNING, "transferq"):
            address = tq.init().address
        tq.kv_put("k", "here", {"x": torch.ones(1)})
        seen = ray.get_actor(own, namespace=NAMESPACE)
        assert ray.get(seen.list_partitions.remote()) == ["here"]
        assert "belongs to the system at unix:/elsewhere" in caplog.text
        assert f"the actor of this one, at {address}, is {own!r}" in caplog.text
        tq.close()
        with pytest.raises(ValueError, match="second"):
            ray.get_actor(own, namespace=NAMESPACE)
        assert ray.get(actor().address.remote()) == "unix:/elsewhere"
    finally:
        ray.kill(other)


def test_without_a_name_that_is_free_the_log_says_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    others = actors_of_others(ACTOR_NAME, f"{ACTOR_NAME}:default")
    try:
        with caplog.at_level(logging.WARNING, "transferq"):
            tq.init()
        assert "has no actor for tools that look inside; start it with a name" in caplog.text
        tq.close()
        assert [ray.get(each.address.remote()) for each in others] == ["unix:/elsewhere"] * 2
    finally:
        for each in others:
            ray.kill(each)


def test_waiting_for_the_death_of_an_actor_asks_ray_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call to an actor that Ray has lost touch with returns at once, repeatedly, until Ray knows more."""
    (other,) = actors_of_others("lost")
    ray.get(other.address.remote())
    asked = 0

    def unavailable(*_: Any, **__: Any) -> None:
        nonlocal asked
        asked += 1
        raise ray.exceptions.ActorUnavailableError("no connection to it", other._actor_id.binary())

    with monkeypatch.context() as patch:
        patch.setattr(ray, "get", unavailable)
        assert not wait_dead(ray, other, 1)
    assert 2 <= asked <= 8
    assert kill(ray, other)


def test_asking_for_it_without_ray_is_an_error_and_leaves_nothing() -> None:
    code = (
        "import transferq\n"
        "try: transferq.init({'ray': {'actor': True}})\n"
        f"except {ConfigError.__name__} as error: print(error)\n"
        "print(transferq._impl.system.find('default'))"
    )
    code = "from transferq.errors import ConfigError\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "Ray is not initialised here" in done.stdout
    assert done.stdout.splitlines()[-1] == "None"
