"""The step-time model: the sum itself, its pieces, and the profile that comes with the package."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.errors import SpecError
from argosy.simulator.step_times import StepCosts, StepTimes, attended_tokens, read_profile, step_seconds

PROFILE = StepTimes(
    name="made-up",
    description="powers of ten, so that every cost shows in the sum",
    measured_at=datetime.date(2026, 1, 31),
    coefficients=StepCosts(
        seconds_per_step=1.0,
        seconds_per_prompt_token=0.1,
        seconds_per_attended_token=0.01,
        seconds_per_sequence=0.001,
        seconds_per_context_token=0.0001,
        seconds_per_size_change=0.00001,
    ),
    max_num_seqs=8,
    max_num_batched_tokens=16,
    kv_cache_tokens=1024,
    max_model_len=512,
    start_seconds=2.0,
    warm_spare_seconds=None,
)


@pytest.mark.parametrize(
    ("prompt_tokens", "attended", "sequences", "context", "is_size_new", "seconds"),
    [
        (0, 0, 0, 0, False, 1.0),
        (2, 0, 0, 0, False, 1.2),
        (0, 3, 0, 0, False, 1.03),
        (0, 0, 4, 0, False, 1.004),
        (0, 0, 0, 5, False, 1.0005),
        (0, 0, 0, 0, True, 1.00001),
        (2, 3, 4, 5, True, 1.23451),
    ],
)
def test_a_step_is_the_sum_of_its_costs(
    prompt_tokens: int, attended: int, sequences: int, context: int, is_size_new: bool, seconds: float
) -> None:
    measured = step_seconds(
        PROFILE,
        prompt_tokens=prompt_tokens,
        prompt_context_tokens=attended,
        num_sequences=sequences,
        context_tokens=context,
        is_size_new=is_size_new,
    )
    assert measured == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("prompt_tokens", "cached", "attended"), [(0, 9, 0), (1, 0, 0), (1, 7, 7), (3, 0, 0 + 1 + 2), (3, 10, 10 + 11 + 12)]
)
def test_attended_tokens(prompt_tokens: int, cached: int, attended: int) -> None:
    assert attended_tokens(prompt_tokens=prompt_tokens, cached_tokens=cached) == attended


@given(first=st.integers(0, 4096), second=st.integers(0, 4096), cached=st.integers(0, 4096))
def test_a_prompt_in_pieces_attends_to_as_many_tokens_as_a_whole_one(first: int, second: int, cached: int) -> None:
    whole = attended_tokens(prompt_tokens=first + second, cached_tokens=cached)
    parts = attended_tokens(prompt_tokens=first, cached_tokens=cached)
    parts += attended_tokens(prompt_tokens=second, cached_tokens=cached + first)
    assert parts == whole


class TestThePackagedProfile:
    profile = read_profile("smollm2-openvino-2cpu")

    def seconds(
        self, *, prompt_tokens: int = 0, sequences: int = 1, context_each: int = 0, is_new: bool = False
    ) -> float:
        return step_seconds(
            self.profile,
            prompt_tokens=prompt_tokens,
            prompt_context_tokens=attended_tokens(prompt_tokens=prompt_tokens, cached_tokens=0),
            num_sequences=sequences,
            context_tokens=sequences * context_each,
            is_size_new=is_new,
        )

    def test_its_name_is_the_files(self) -> None:
        assert self.profile.name == "smollm2-openvino-2cpu"

    def test_every_cost_was_found(self) -> None:
        assert all(cost > 0 for cost in msgspec.structs.astuple(self.profile.coefficients))

    def test_one_answer_runs_at_the_rate_the_engine_was_seen_at(self) -> None:
        assert 80 < 1 / self.seconds(context_each=128) < 200

    def test_a_batch_makes_more_tokens_a_second_than_one_answer(self) -> None:
        assert 32 / self.seconds(sequences=32, context_each=128) > 5 / self.seconds(context_each=128)

    def test_a_step_full_of_prompt_takes_longer_than_one_full_of_answers(self) -> None:
        full = self.profile.max_num_batched_tokens
        assert self.seconds(prompt_tokens=full, is_new=True) > self.seconds(sequences=64, context_each=128)

    def test_its_limits_fit_each_other(self) -> None:
        assert self.profile.max_num_seqs <= self.profile.max_num_batched_tokens < self.profile.max_model_len
        assert self.profile.max_model_len <= self.profile.kv_cache_tokens


class TestReadProfile:
    def test_reads_a_file_by_its_path(self, tmp_path: Path) -> None:
        path = tmp_path / "made-up.json"
        path.write_bytes(msgspec.json.encode(PROFILE))
        assert read_profile(str(path)) == PROFILE

    @pytest.mark.parametrize("name", ["nowhere", "nowhere.json", "/nowhere/profile"])
    def test_an_unknown_one_is_refused_with_the_known_names(self, name: str) -> None:
        with pytest.raises(SpecError, match=rf"{name}.*smollm2-openvino-2cpu"):
            read_profile(name)

    @pytest.mark.parametrize(
        ("field", "value", "named"),
        [
            ("max_num_seqs", 0, "max_num_seqs"),
            ("start_seconds", -1.0, "start_seconds"),
            ("measured_at", "yesterday", "measured_at"),
            ("colour", "blue", "colour"),
            ("coefficients", {"seconds_per_step": -0.1}, "seconds_per_step"),
        ],
    )
    def test_a_wrong_field_is_named(self, tmp_path: Path, field: str, value: object, named: str) -> None:
        path = tmp_path / "wrong.json"
        path.write_bytes(msgspec.json.encode({**msgspec.to_builtins(PROFILE), field: value}))
        with pytest.raises(SpecError, match=named):
            read_profile(str(path))

    def test_what_is_not_json_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "text.json"
        path.write_text("step: 7 ms")
        with pytest.raises(SpecError, match="cannot be read"):
            read_profile(str(path))
