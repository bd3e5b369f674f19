"""Requests that belong together meet one worker, in their order; what ends a sequence, and what clients are told."""

from __future__ import annotations

import asyncio

import pytest
from predictions_world import Stage, ask, outcome, serving, settings
from sim_virtual_time import run_virtually

from argosy.core.errors import NoWorker, QueueFull
from argosy.core.model_archive import SequenceSettings

SEVERAL = SequenceSettings(max_sequences=3, max_queued_per_sequence=4)


def test_a_sequence_stays_with_its_worker_and_keeps_its_order() -> None:
    async def story() -> None:
        stage = Stage()
        async with serving(stage, settings(min_workers=2, batch_size=4, sequences=SEVERAL)) as version:
            await version.wait_scaled(9.0)
            await asyncio.gather(
                *(ask(version, f"{name}0", sequence_id=name, starts_sequence=True) for name in ("a", "b", "c"))
            )
            for _ in range(2):
                await asyncio.gather(
                    *(ask(version, f"{name}{n}", sequence_id=name) for n in (1, 2, 3) for name in ("a", "b", "c"))
                )
            for name in ("a", "b", "c"):
                mine = [(seat, text) for seat, texts in stage.calls for text in texts if text.startswith(name)]
                assert len({seat for seat, _ in mine}) == 1
                assert [text[1:] for _, text in mine] == list("0123123")
            assert max(len(texts) for texts in stage.texts()) > 1  # different sequences share calls

    run_virtually(story())


def test_what_a_sequence_refuses() -> None:
    async def story() -> None:
        limits = SequenceSettings(max_sequences=1, max_queued_per_sequence=1)
        async with serving(Stage(), settings(sequences=limits)) as version:
            with pytest.raises(NoWorker, match="not open"):
                await ask(version, "ok", sequence_id="a")
            assert await ask(version, "ok", sequence_id="a", starts_sequence=True) == "OK"
            with pytest.raises(QueueFull, match="sequences are open"):
                await ask(version, "ok", sequence_id="b", starts_sequence=True)
            running = asyncio.create_task(outcome(version, "slow", sequence_id="a"))
            await asyncio.sleep(0.1)
            waiting = asyncio.create_task(outcome(version, "ok", sequence_id="a"))
            await asyncio.sleep(0.1)
            with pytest.raises(QueueFull, match="of sequence 'a' wait"):
                await ask(version, "ok", sequence_id="a")
            assert await asyncio.gather(running, waiting) == ["SLOW", "OK"]
            assert await ask(version, "last", sequence_id="a", ends_sequence=True) == "LAST"
            with pytest.raises(NoWorker, match="not open"):
                await ask(version, "ok", sequence_id="a")
            assert await ask(version, "ok", sequence_id="b", starts_sequence=True) == "OK"

    run_virtually(story())


def test_a_silent_sequence_ends_and_makes_room() -> None:
    async def story() -> None:
        limits = SequenceSettings(max_idle_seconds=5.0)
        async with serving(Stage(), settings(sequences=limits)) as version:
            await ask(version, "ok", sequence_id="a", starts_sequence=True)
            await asyncio.sleep(4.0)
            assert await outcome(version, "ok", sequence_id="a") == "OK"
            await asyncio.sleep(5.1)
            assert await outcome(version, "ok", sequence_id="a") == "NoWorker"
            assert await outcome(version, "ok", sequence_id="b", starts_sequence=True) == "OK"

    run_virtually(story())


def test_an_old_sequence_ends_and_its_waiting_requests_are_told() -> None:
    async def story() -> None:
        limits = SequenceSettings(timeout_seconds=5.0, max_queued_per_sequence=9)
        loop = asyncio.get_running_loop()
        async with serving(Stage(), settings(sequences=limits)) as version:
            first = asyncio.create_task(outcome(version, "slow", sequence_id="a", starts_sequence=True))
            await asyncio.sleep(0.1)
            assert await outcome(version, "ok", sequence_id="a") == "DeadlineExceeded"
            assert loop.time() == pytest.approx(5.0)
            assert await first == "SLOW"

    run_virtually(story())


def test_f03_a_sequence_ends_with_its_worker_and_nothing_of_it_is_repeated() -> None:
    async def story() -> None:
        stage = Stage()
        async with serving(stage, settings(min_workers=2, batch_size=4, sequences=SEVERAL)) as version:
            first = asyncio.create_task(outcome(version, "kill", sequence_id="a", starts_sequence=True))
            await asyncio.sleep(0.1)
            others = [asyncio.create_task(outcome(version, f"ok{n}", sequence_id="a")) for n in range(2)]
            assert await first == "WorkerDied"
            assert await asyncio.gather(*others) == ["WorkerDied"] * 2
            assert stage.texts() == [("kill",)]
            assert await outcome(version, "ok", sequence_id="a", starts_sequence=True) == "OK"

    run_virtually(story())


def test_scaling_down_answers_what_waits_for_a_leaving_worker() -> None:
    async def story() -> None:
        stage = Stage()
        async with serving(stage, settings(min_workers=2, sequences=SEVERAL)) as version:
            await version.wait_scaled(9.0)
            await asyncio.gather(*(ask(version, "ok", sequence_id=name, starts_sequence=True) for name in ("a", "b")))
            asking = [
                asyncio.create_task(outcome(version, "ok", sequence_id=name)) for name in ("a", "b") for _ in range(3)
            ]
            await asyncio.sleep(0.1)
            version.scale(1, 1)
            assert await asyncio.gather(*asking) == ["OK"] * 6
            assert await version.wait_scaled(9.0)
            both = [await outcome(version, "ok", sequence_id=name) for name in ("a", "b")]
            assert sorted(both) == ["NoWorker", "OK"]

    run_virtually(story())


def test_a_client_that_leaves_takes_its_request_out_of_the_sequence() -> None:
    async def story() -> None:
        async with serving(Stage(), settings(sequences=SEVERAL)) as version:
            running = asyncio.create_task(outcome(version, "slow", sequence_id="a", starts_sequence=True))
            await asyncio.sleep(0.1)
            leaving = asyncio.create_task(outcome(version, "ok", sequence_id="a"))
            await asyncio.sleep(0.1)
            assert version.num_queued == 1
            leaving.cancel()
            await asyncio.wait([leaving])
            assert version.num_queued == 0
            assert await running == "SLOW"
            assert await outcome(version, "ok", sequence_id="a") == "OK"
            assert await outcome(version, "plain") == "PLAIN"

    run_virtually(story())


def test_the_late_end_of_an_expired_sequence_leaves_the_next_one_of_its_name_alone() -> None:
    async def story() -> None:
        limits = SequenceSettings(max_sequences=3, max_queued_per_sequence=3, timeout_seconds=5.0)
        async with serving(Stage(), settings(min_workers=2, sequences=limits)) as version:
            await version.wait_scaled(9.0)
            old = asyncio.create_task(
                outcome(version, "slow", sequence_id="a", starts_sequence=True, ends_sequence=True)
            )
            await asyncio.sleep(8.0)
            new = [asyncio.create_task(outcome(version, "ok", sequence_id="a", starts_sequence=True))]
            await asyncio.sleep(0.5)
            new.append(asyncio.create_task(outcome(version, "stream", sequence_id="a")))
            await asyncio.sleep(1.0)
            new.append(asyncio.create_task(outcome(version, "ok", sequence_id="a")))
            assert await old == "SLOW"
            async with asyncio.timeout(60.0):
                assert await asyncio.gather(*new) == ["OK", "0,1,2,STREAM", "DeadlineExceeded"]
            assert version.num_queued == 0

    run_virtually(story())


def test_a_sequence_that_nobody_began_makes_room_when_its_client_leaves() -> None:
    async def story() -> None:
        stage = Stage()
        stage.start_seconds = 3.0
        async with serving(stage, settings(sequences=SequenceSettings(max_sequences=1))) as version:
            leaving = asyncio.create_task(outcome(version, "ok", sequence_id="a", starts_sequence=True))
            await asyncio.sleep(1.0)
            leaving.cancel()
            await asyncio.wait([leaving])
            assert await outcome(version, "ok", sequence_id="b", starts_sequence=True) == "OK"

    run_virtually(story())
