"""The storm is a pure function of its seed, and no kind of fault is left out."""

import random
from collections import Counter
from pathlib import Path

import pytest

from chaos.jobs import Kind, draw, load_kinds
from chaos.plan import OWN_PROJECT
from chaos.weather import NAMES, Where, schedule
from listener.errors import ConfigError
from listener.registry import load


def test_the_same_seed_has_the_same_weather_and_another_seed_has_another() -> None:
    storm = schedule(7, 600, 3, 10)
    random.seed(0)  # whatever else draws in the process
    assert schedule(7, 600, 3, 10) == storm
    assert schedule(8, 600, 3, 10) != storm


@pytest.mark.parametrize("seconds", [8, 40, 600])
def test_every_kind_of_fault_comes_before_any_comes_again(seconds: float) -> None:
    storm = schedule(3, seconds, 3, 10)
    count = Counter(deed.what for deed in storm)
    assert count.keys() == set(NAMES)
    assert max(count.values()) - min(count.values()) <= 1
    assert all(0 < deed.at < seconds for deed in storm)
    assert [deed.at for deed in storm] == sorted(deed.at for deed in storm)


def test_only_producers_and_workers_have_a_lane_and_producers_are_met_by_rest_faults_alone() -> None:
    storm = schedule(5, 3600, 3, 10)
    assert {deed.lane for deed in storm} == {0, 1, 2, 3}
    assert {deed.where for deed in storm if deed.lane == 3} == {Where.REST}


def test_a_storm_may_be_made_of_some_faults_only() -> None:
    assert {deed.what for deed in schedule(1, 60, 3, 10, ("kill", "deaf"))} == {"kill", "deaf"}


def test_a_frozen_worker_is_frozen_for_longer_than_its_lease_and_a_napping_one_is_not() -> None:
    storm = schedule(1, 3600, 3, 10)
    assert min(deed.seconds for deed in storm if deed.what in {"freeze", "cut_off"}) > 10
    assert max(deed.seconds for deed in storm if deed.what == "nap") < 10


def test_the_same_seed_has_the_same_jobs() -> None:
    kinds = load_kinds(OWN_PROJECT)
    jobs = draw(kinds, 500, 7)
    assert draw(kinds, 500, 7) == jobs
    assert len(jobs) == 500
    assert {(job.queue, job.type) for job in jobs} == {(kind.queue, kind.type) for kind in kinds}
    assert len({job.idempotency_key for job in jobs}) == 500


def test_every_periodic_job_has_its_handler_in_the_lab() -> None:
    wanted = [OWN_PROJECT / "handlers" / one.queue / f"{one.type}.py" for one in load().schedules]
    assert len(wanted) >= 6
    assert [str(file) for file in wanted if "@every(" not in file.read_text()] == []


def test_rare_kinds_alone_make_a_storm_too() -> None:
    assert len(draw([Kind("payment", "rare", most=3)], 3, 1)) == 3


@pytest.mark.parametrize(
    ("text", "words"), [(None, "has no chaos_jobs.py"), ("", "must define KINDS"), ("KINDS = [1]", "not int")]
)
def test_a_project_that_does_not_say_what_its_jobs_are_is_told_how(
    tmp_path: Path, text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "chaos_jobs.py").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_kinds(tmp_path)
