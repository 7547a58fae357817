import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.buckets import BucketConfig, BucketSchedule
from diffusion.errors import CheckpointMismatchError, ConfigError, ResolutionError


def test_every_bucket_costs_the_same_number_of_tokens():
    schedule = BucketSchedule(BucketConfig(resolutions=(16, 32, 64), tokens_per_step=4096), seed=0)

    assert [(b.resolution, b.batch) for b in schedule.buckets] == [(16, 64), (32, 16), (64, 4)]
    assert {b.batch * b.tokens for b in schedule.buckets} == {4096}


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    visits=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    start=st.integers(0, 500),
)
def test_no_bucket_starves_whatever_the_seed_and_the_visits(seed, visits, start):
    resolutions = (8, 16, 32, 64)[: len(visits)]
    schedule = BucketSchedule(BucketConfig(resolutions=resolutions, visits=tuple(visits)), seed=seed)
    length = schedule.round_length

    window = [schedule.at(step).resolution for step in range(start, start + 2 * length)]
    whole_round = [schedule.at(step).resolution for step in range(3 * length, 4 * length)]

    assert set(window) == set(resolutions)
    assert [whole_round.count(side) for side in resolutions] == visits


def test_the_schedule_is_a_function_of_seed_and_step_alone():
    config = BucketConfig()
    forward = [BucketSchedule(config, seed=5).at(step) for step in range(30)]

    backward = [BucketSchedule(config, seed=5).at(step) for step in reversed(range(30))]

    assert forward == backward[::-1]
    assert set(forward) <= set(BucketSchedule(config, seed=5).buckets)
    assert forward != [BucketSchedule(config, seed=6).at(step) for step in range(30)]


def test_a_schedule_accepts_only_the_state_of_its_equal():
    schedule = BucketSchedule(BucketConfig(), seed=0)

    schedule.load_state_dict(BucketSchedule(BucketConfig(), seed=0).state_dict())

    with pytest.raises(CheckpointMismatchError, match="seed") as caught:
        schedule.load_state_dict(BucketSchedule(BucketConfig(), seed=1).state_dict())
    assert caught.value.fields == ("seed",)


@pytest.mark.parametrize("resolution", [-16, 0, 2, 17])
def test_a_resolution_that_cannot_be_cut_into_tokens_is_refused(resolution):
    with pytest.raises(ResolutionError, match=str(resolution)):
        BucketConfig(resolutions=(16, resolution))


@pytest.mark.parametrize(
    "values",
    [{"resolutions": ()}, {"resolutions": (16, 16)}, {"tokens_per_step": 0}, {"visits": (1,)}, {"visits": (1, 1, 0)}],
    ids=["none", "twice", "no tokens", "too few visits", "no visit"],
)
def test_impossible_buckets_are_refused(values):
    with pytest.raises(ConfigError):
        BucketConfig(**values)
