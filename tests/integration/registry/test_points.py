"""The points of the dial that a job is accepted with: kept with it, and refused where there is no room for them."""

from typing import Any

import pytest
from sqlalchemy import null, update

from osora_common.presets import PRESETS, Preset, kept_point
from registry import bases, jobs
from registry.context import Registry
from registry.errors import InvalidRequest
from registry.jobs import JobRequest
from registry.models import Adapter, Job
from registry.references import refer
from registry.tenants import Principal
from tests.support.jobs import claim, new_adapter, read, record_checkpoint, upload

FULL = {"q_proj": [[128, 576]], "k_proj": [[96, 192]]}


def submit(registry: Registry, principal: Principal, *, largest_mix: int | None = None, **request: Any) -> Job:
    offers = {"osora-tiny": bases.Offer(spans=FULL, largest_mix=largest_mix)}
    file = upload(registry, principal).id
    wanted = JobRequest(**{"base": "osora-tiny", "training_file": file, **request})
    with registry.transaction() as session:
        return jobs.submit(session, principal, wanted, registry.settings, offers)


def shapes(job: Job) -> list[tuple[Any, ...]]:
    assert job.points is not None
    return [(point["preset"], point["rank"], point["mix"]) for point in job.points]


@pytest.fixture
def mixed(registry: Registry, principal: Principal) -> Adapter:
    """An adapter of rank 16 with a mix of 8."""
    attempt = claim(registry, submit(registry, principal))
    new = new_adapter(attempt, mix=8)
    registry.store.put(new.object_key, b"zip")
    with registry.transaction() as session:
        return jobs.complete(session, attempt, step=9, trained_tokens=1, adapter=new, metrics={})


def test_what_was_settled_outlives_a_change_of_the_table(
    registry: Registry, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(registry, principal, osora={"preset": ["small", "balanced"]})
    before = [PRESETS["small"], PRESETS["balanced"]]
    for name in ("small", "balanced"):
        monkeypatch.setitem(PRESETS, name, Preset(rank=1, mix=1, learning_rate=9.0, sigma_rate=9.0, mix_rate=9.0))
    found = claim(registry, job).points
    assert [(point.rank, point.mix, point.learning_rate, point.sigma_rate, point.mix_rate) for point in found] == [
        (preset.rank, preset.mix, preset.learning_rate, preset.sigma_rate, preset.mix_rate) for preset in before
    ]
    assert read(registry, principal, job).osora == {"preset": ["small", "balanced"]}


def test_a_job_of_before_trains_what_it_would_have(registry: Registry, principal: Principal) -> None:
    job = submit(registry, principal, osora={"rank": 24})
    with registry.transaction() as session:
        session.execute(update(Job).where(Job.id == job.id).values(points=null()))
    (point,) = claim(registry, job).points
    assert (point.preset, point.rank, point.mix, point.learning_rate, point.sigma_rate) == (None, 24, 0, 0.03, 2.0)


@pytest.mark.parametrize(
    ("osora", "param", "message", "next_action"),
    [
        (
            {"mix": 33},
            "osora.mix",
            "osora.mix is 33, and the inference servers hold mixes of at most 32",
            "use 0 to 32",
        ),
        ({"preset": "quality"}, "osora.preset", "the preset 'quality' has a mix of 64", "choose another preset"),
        ({"preset": ["small", "quality"]}, "osora.preset", "the preset 'quality' has a mix of 64", "another preset"),
        ({"preset": "quality", "mix": 48}, "osora.mix", "osora.mix is 48", "use 0 to 32"),
        ({"rank": 8, "mix": 9}, "osora.mix", "osora.mix is 9, over the rank 8", "use 0 to 8"),
        ({"rank": 16, "mix_rate": 0.2}, "osora.mix_rate", "the job has none", "give `osora.mix`"),
        ({"preset": "small", "mix_rate": [0.1, 0.2]}, "osora.mix_rate", "the job has none", "a preset that has one"),
        ({"preset": ["small", "balanced"], "mix": 4}, "osora.preset", "the same here: rank 128, mix 4", "leave out"),
    ],
)
def test_what_there_is_no_room_for_is_refused_before_it_trains(
    registry: Registry, principal: Principal, osora: dict[str, Any], param: str, message: str, next_action: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        submit(registry, principal, largest_mix=32, osora=osora)
    assert refused.value.param == param
    assert message in refused.value.message
    assert next_action in str(refused.value.next_action)
    with registry.reading() as session:
        assert jobs.list(session, principal).data == []


def test_no_message_names_a_preset_that_nobody_asked_for(
    registry: Registry, principal: Principal, mixed: Adapter
) -> None:
    for osora, request in (({"mix": 5}, {}), ({}, {"base": None, "from_adapter": mixed.id})):
        with pytest.raises(InvalidRequest) as refused:
            submit(registry, principal, largest_mix=4, osora=osora, **request)
        assert "preset" not in f"{refused.value.message} {refused.value.next_action}"


def test_servers_that_do_not_say_refuse_nothing(registry: Registry, principal: Principal) -> None:
    # Whose widest weight has 128 directions here.
    assert shapes(submit(registry, principal, osora={"preset": "quality"})) == [("quality", 128, 64)]
    assert shapes(submit(registry, principal, largest_mix=0, osora={"preset": "small"})) == [("small", 128, 0)]


def test_a_default_never_asks_for_more_than_there_is(
    registry: Registry, principal: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osora_common.presets.DEFAULT_PRESET", "balanced")
    assert shapes(submit(registry, principal, largest_mix=4)) == [("balanced", 128, 4)]
    assert shapes(submit(registry, principal, largest_mix=0)) == [("balanced", 128, 0)]


def test_going_on_keeps_rank_and_mix(registry: Registry, principal: Principal, mixed: Adapter) -> None:
    go_on = {"base": None, "from_adapter": mixed.id}
    assert submit(registry, principal, **go_on).points == [kept_point(16, 8).to_dict()]
    assert shapes(submit(registry, principal, **go_on, osora={"mix": 12})) == [(None, 16, 12)]
    for osora, param in (({"mix": 4}, "osora.mix"), ({"preset": "balanced"}, "osora.preset")):
        with pytest.raises(InvalidRequest) as refused:
            submit(registry, principal, **go_on, osora=osora)
        assert refused.value.param == param
        assert "a mix of 8" in refused.value.message


def test_a_checkpoint_knows_its_mix(registry: Registry, principal: Principal) -> None:
    of = submit(registry, principal)
    attempt = claim(registry, of)
    with registry.transaction() as session:
        record_checkpoint(session, attempt, 1, adapter=new_adapter(attempt, mix=8))
    with registry.reading() as session:
        ref = refer(session, principal, f"ftckpt_{of.id[-16:]}_1")
    assert (ref.rank, ref.mix) == (16, 8)
    assert submit(registry, principal, base=None, from_adapter=ref.id).points == [kept_point(16, 8).to_dict()]
