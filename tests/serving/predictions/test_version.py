"""A version answers, batches, refuses, restarts its workers and ends: each story on a virtual clock."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from predictions_world import (
    AheadPredictor,
    CoalescingPredictor,
    ConcurrentPredictor,
    Ledger,
    Stage,
    ask,
    outcome,
    outcomes,
    request,
    serving,
    settings,
)
from sim_virtual_time import run_virtually

from argosy.core.errors import DeadlineExceeded, EngineError, HandlerError, NoWorker, QueueFull
from argosy.core.model_archive import SequenceSettings
from argosy.core.prediction import Prediction
from argosy.core.prediction_status import WorkerPhase
from argosy.serving.predictions.guard import Guard


def test_a_request_waits_for_its_worker_and_is_answered_with_index_0() -> None:
    async def story() -> None:
        stage, ledger = Stage(), Ledger()
        stage.start_seconds = 5.0
        async with serving(stage, settings(batch_size=4), ledger) as version:
            assert await outcomes(version, "ok1", "ok2") == ["OK1", "OK2"]
            async with aclosing(version.predict(request("ok"))) as pieces:
                assert [piece.index async for piece in pieces] == [0]
            assert stage.texts()[0] == ("ok1", "ok2")
            assert ledger.loads == [5.0]
            assert next(iter(ledger.seconds.values())) == (5.0, 1.0)
            assert len(ledger.metrics) == 1

    run_virtually(story())


def test_a_batch_closes_when_full_or_when_its_first_waited_long_enough() -> None:
    async def story() -> None:
        stage = Stage()
        loop = asyncio.get_running_loop()
        async with serving(stage, settings(batch_size=3, max_batch_delay_seconds=2.0)) as version:
            await ask(version, "ok")
            began = loop.time()
            assert len(await outcomes(version, "ok1", "ok2", "ok3")) == 3
            assert loop.time() - began == pytest.approx(1.0)
            began = loop.time()
            assert len(await outcomes(version, "ok4", "ok5")) == 2
            assert loop.time() - began == pytest.approx(3.0)
            assert stage.texts()[1:] == [("ok1", "ok2", "ok3"), ("ok4", "ok5")]

    run_virtually(story())


def test_pieces_arrive_as_they_are_made() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with serving(Stage(), settings()) as version:
            async with aclosing(version.predict(request("stream"))) as pieces:
                times = [loop.time() async for _ in pieces]
            assert times == pytest.approx([1.0, 2.0, 3.0, 4.0])

    run_virtually(story())


def test_d31_one_bad_item_fails_alone_and_the_others_get_their_own_answers() -> None:
    async def story() -> None:
        stage = Stage()
        async with serving(stage, settings(batch_size=4)) as version:
            assert await outcomes(version, "ok1", "bad", "ok2", "mute") == [
                "OK1",
                "HandlerError",
                "OK2",
                "HandlerError",
            ]
            assert stage.texts() == [("ok1", "bad", "ok2", "mute"), ("bad",), ("ok2",), ("mute",)]

    run_virtually(story())


def test_d31_what_was_streamed_is_never_answered_twice() -> None:
    async def story() -> None:
        stage = Stage()
        async with serving(stage, settings(batch_size=2)) as version:
            both = await outcomes(version, "stream", "bad")
            assert both == ["0,1,2,STREAM", "HandlerError"]
            assert stage.texts() == [("stream", "bad"), ("bad",)]

    run_virtually(story())


@pytest.mark.parametrize(("text", "error"), [("kill", "WorkerDied"), ("ooms", "OutOfResources")])
def test_f03_f05_a_worker_that_dies_is_replaced_and_each_job_gets_one_answer(text: str, error: str) -> None:
    async def story() -> None:
        stage = Stage()
        loop = asyncio.get_running_loop()
        async with serving(stage, settings(batch_size=3)) as version:
            assert await outcomes(version, "ok1", text, "ok2", "ok3") == ["OK1", error, "OK2", "OK3"]
            began = loop.time()
            assert await ask(version, "ok4") == "OK4"
            assert loop.time() - began <= 2.0
            assert version.status().workers[0].restarts == 2

    run_virtually(story())


def test_f03_a_worker_that_dies_idle_is_replaced_before_anybody_asks() -> None:
    async def story() -> None:
        stage = Stage()
        async with serving(stage, settings()) as version:
            await ask(version, "ok")
            stage.living[0].die(EngineError("gone"))
            await asyncio.sleep(0.5)
            assert [worker.phase for worker in version.status().workers] == [WorkerPhase.READY]
            assert stage.num_made == 2

    run_virtually(story())


def test_f04_a_worker_that_hangs_is_replaced_at_the_response_timeout() -> None:
    async def story() -> None:
        stage = Stage()
        loop = asyncio.get_running_loop()
        async with serving(stage, settings(response_timeout_seconds=20.0)) as version:
            assert await outcomes(version, "hang", "ok") == ["WorkerDied", "OK"]
            assert loop.time() == pytest.approx(21.0)

    run_virtually(story())


def test_the_response_timeout_counts_from_the_last_piece() -> None:
    async def story() -> None:
        async with serving(Stage(), settings(response_timeout_seconds=1.5)) as version:
            assert await ask(version, "stream") == "0,1,2,STREAM"

    run_virtually(story())


def test_f04_a_short_time_after_a_long_one_is_watched_as_closely() -> None:
    async def story() -> None:
        guard = Guard()
        guard.begin(100.0)
        guard.end()
        guard.begin(1.0)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(50.0)
        assert (guard.was_interrupting(), guard.is_expired) == (True, True)
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)
        guard.close()

    run_virtually(story())


def test_f06_a_client_that_leaves_frees_its_place_at_once() -> None:
    async def story() -> None:
        stage, ledger = Stage(), Ledger()
        async with serving(stage, settings(job_queue_size=64), ledger) as version:
            running = asyncio.create_task(ask(version, "slow"))
            await asyncio.sleep(0.5)
            waiting = [asyncio.create_task(ask(version, "ok")) for _ in range(64)]
            await asyncio.sleep(0.5)
            assert (version.num_queued, version.num_running) == (64, 1)
            with pytest.raises(QueueFull):
                await ask(version, "ok")
            for task in [running, *waiting]:
                task.cancel()
            await asyncio.wait([running, *waiting])
            assert (version.num_queued, version.num_running) == (0, 1)
            assert await ask(version, "ok") == "OK"
            assert [len(texts) for texts in stage.texts()] == [1, 1]
            assert ledger.arrived_ids == ledger.ended_ids

    run_virtually(story())


def test_f06_a_reader_that_is_too_slow_loses_its_answer_alone() -> None:
    async def story() -> None:
        stage = Stage()

        async def flood(index: int, text: str):  # type: ignore[no-untyped-def]
            for _ in range(40):
                yield piece_of(index, bytes(1 << 20), is_last=False)
            yield piece_of(index, b"end")

        def make(seat: int) -> object:
            predictor = stage.make(seat)
            predictor._answer = flood  # type: ignore[assignment]
            return predictor

        async with (
            serving(stage, settings(batch_size=2), make=make) as version,
            aclosing(version.predict(request("slow reader"))) as slow,
        ):
            await anext(slow)
            await asyncio.sleep(5.0)
            with pytest.raises(EngineError, match="reads too slowly"):
                async for _ in slow:
                    pass

    run_virtually(story())


def piece_of(index: int, body: bytes, *, is_last: bool = True):  # type: ignore[no-untyped-def]
    return Prediction(index=index, body=body, is_last=is_last)


def test_f07_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with serving(Stage(), settings(job_queue_size=10)) as version:
            assert len(await outcomes(version, "ok", "ok", "ok")) == 3  # one a second: the measured rate
            asking = [asyncio.create_task(outcome(version, "ok"))]
            await asyncio.sleep(0.1)
            asking += [asyncio.create_task(outcome(version, "ok")) for _ in range(10)]
            await asyncio.sleep(0.1)
            before = loop.time()
            with pytest.raises(QueueFull) as refused:
                await ask(version, "ok")
            assert loop.time() == before
            assert refused.value.status == 503
            assert refused.value.retry_after_seconds == pytest.approx(6.0)
            await asyncio.wait(asking)

    run_virtually(story())


def test_job_tickets_refuse_unless_a_worker_is_idle() -> None:
    async def story() -> None:
        async with serving(Stage(), settings(min_workers=2, use_job_ticket=True)) as version:
            await version.wait_scaled(9.0)
            await asyncio.sleep(0.1)
            assert sorted(await outcomes(version, "ok", "ok", "ok")) == ["OK", "OK", "QueueFull"]

    run_virtually(story())


def test_a_client_timeout_is_an_answer() -> None:
    async def story() -> None:
        stage = Stage()
        loop = asyncio.get_running_loop()
        async with serving(stage, settings(client_timeout_seconds=3.0)) as version:
            answers = await outcomes(version, "ok", "slow", "ok", "ok")
            assert answers == ["OK", *["DeadlineExceeded"] * 3]
            assert loop.time() == pytest.approx(3.0)
            assert version.num_queued == 0
            with pytest.raises(DeadlineExceeded, match="client timeout"):
                await ask(version, "ok")

    run_virtually(story())


def test_a_client_timeout_does_not_cut_an_answer_that_has_begun() -> None:
    async def story() -> None:
        async with serving(Stage(), settings(client_timeout_seconds=2.0)) as version:
            assert await outcomes(version, "stream", "ok") == ["0,1,2,STREAM", "DeadlineExceeded"]

    run_virtually(story())


def test_no_worker_is_said_at_once() -> None:
    async def story() -> None:
        async with serving(Stage(), settings(min_workers=0)) as version:
            assert version.is_healthy
            with pytest.raises(NoWorker, match="scale it"):
                await ask(version, "ok")
            assert await version.describe() is None
            version.scale(1, 1)
            assert await ask(version, "ok") == "OK"
            assert await version.describe() == {"calls": 1}

    run_virtually(story())


def test_starts_that_fail_are_tried_less_and_less_often_and_nobody_waits_for_them() -> None:
    async def story() -> None:
        stage = Stage()
        stage.start_errors = [EngineError("no such file")] * 8
        async with serving(stage, settings()) as version:
            waiting = asyncio.create_task(outcome(version, "ok"))
            with pytest.raises(EngineError, match="no such file"):
                await version.wait_scaled(60.0)
            assert await waiting == "NoWorker"
            assert asyncio.get_running_loop().time() == pytest.approx(0 + 1 + 1 + 2 + 3 + 5)
            with pytest.raises(NoWorker, match="no such file") as refused:
                await ask(version, "ok")
            assert refused.value.retry_after_seconds == pytest.approx(8.0)
            assert version.status().workers[0].reason == "no such file"
            assert not version.is_healthy
            await asyncio.sleep(8.0 + 13.0 + 0.1)
            assert await ask(version, "ok") == "OK"
            assert version.is_healthy

    run_virtually(story())


def test_a_success_makes_the_next_failure_the_first_again() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with serving(Stage(), settings()) as version:
            for _ in range(6):
                assert await outcomes(version, "kill", "ok") == ["WorkerDied", "OK"]
            assert loop.time() == pytest.approx(12.0)

    run_virtually(story())


def test_health_forgives_a_lost_worker_for_the_retry_time() -> None:
    async def story() -> None:
        stage = Stage()
        async with serving(stage, settings(retry_timeout_seconds=30.0)) as version:
            assert not version.is_healthy  # it never was ready
            await version.wait_scaled(9.0)
            assert version.is_healthy
            stage.start_errors = [EngineError("no")] * 100
            stage.living[0].die(EngineError("gone"))
            await asyncio.sleep(29.0)
            assert version.is_healthy
            await asyncio.sleep(2.0)
            assert not version.is_healthy

    run_virtually(story())


def test_scaling_down_lets_running_requests_finish() -> None:
    async def story() -> None:
        stage = Stage()
        async with serving(stage, settings(min_workers=4)) as version:
            asking = [asyncio.create_task(outcome(version, "slow")) for _ in range(8)]
            await asyncio.sleep(1.0)
            version.scale(1, 1)
            assert not await version.wait_scaled(1.0)
            assert [worker.phase for worker in version.status().workers].count(WorkerPhase.DRAINING) == 3
            assert await version.wait_scaled(60.0)
            assert await asyncio.gather(*asking) == ["SLOW"] * 8
            assert [worker.seat for worker in version.status().workers] == [9000]

    run_virtually(story())


def test_scaling_to_none_answers_what_waits_and_refuses_what_comes() -> None:
    async def story() -> None:
        async with serving(Stage(), settings()) as version:
            asking = [asyncio.create_task(outcome(version, "ok")) for _ in range(5)]
            await asyncio.sleep(0.5)
            version.scale(0, 0)
            assert await outcome(version, "ok") == "NoWorker"
            assert await asyncio.gather(*asking) == ["OK"] * 5
            assert await version.wait_scaled(1.0)

    run_virtually(story())


def test_draining_answers_everything_and_then_ends_the_workers() -> None:
    async def story() -> None:
        stage = Stage()
        async with serving(stage, settings(min_workers=2)) as version:
            asking = [asyncio.create_task(outcome(version, "ok")) for _ in range(9)]
            await asyncio.sleep(0.5)
            assert await version.drain(30.0)
            assert [task.result() for task in asking] == ["OK"] * 9
            assert not stage.living
            assert await outcome(version, "ok") == "NoWorker"

    run_virtually(story())


def test_a_drain_in_vain_ends_and_closing_answers_everyone() -> None:
    async def story() -> None:
        async with serving(Stage(), settings()) as version:
            asking = [asyncio.create_task(outcome(version, text)) for text in ("hang", "ok")]
            await asyncio.sleep(0.5)
            assert not await version.drain(5.0)
            await version.close()
            assert await asyncio.gather(*asking) == ["WorkerDied", "NoWorker"]

    run_virtually(story())


def test_draining_replaces_a_worker_that_dies_meanwhile() -> None:
    async def story() -> None:
        async with serving(Stage(), settings()) as version:
            asking = [asyncio.create_task(outcome(version, text)) for text in ("ok", "kill", "ok")]
            await asyncio.sleep(0.5)
            assert await version.drain(30.0)
            assert [task.result() for task in asking] == ["OK", "WorkerDied", "OK"]

    run_virtually(story())


def test_a_question_to_the_handler_waits_its_turn() -> None:
    async def story() -> None:
        async with serving(Stage(), settings(batch_size=4)) as version:
            asking = asyncio.create_task(outcome(version, "slow"))
            await asyncio.sleep(1.0)
            assert await version.describe() == {"calls": 1}
            assert await asking == "SLOW"

    run_virtually(story())


def test_a_predictor_of_many_calls_answers_them_beside_each_other_and_ends_the_unwanted() -> None:
    async def story() -> None:
        stage = Stage()
        loop = asyncio.get_running_loop()
        async with serving(stage, settings(), make=lambda seat: ConcurrentPredictor(stage, seat)) as version:
            assert await outcomes(version, *["ok"] * 4) == ["OK"] * 4
            assert loop.time() == pytest.approx(1.0)
            leaving = [asyncio.create_task(ask(version, "slow")) for _ in range(4)]
            await asyncio.sleep(1.0)
            for task in leaving:
                task.cancel()
            await asyncio.wait(leaving)
            assert await ask(version, "ok") == "OK"
            assert loop.time() == pytest.approx(3.0)

    run_virtually(story())


def test_short_calls_are_given_ahead_but_never_while_a_worker_is_idle() -> None:
    async def story() -> None:
        stage = Stage(lambda size: 0.001)
        made: list[AheadPredictor] = []

        def make(seat: int) -> AheadPredictor:
            made.append(AheadPredictor(stage, seat))
            return made[-1]

        async with serving(stage, settings(min_workers=2), make=make) as version:
            await version.wait_scaled(9.0)
            await outcomes(version, "ok")
            assert [predictor.most_open for predictor in made] == [1, 0]
            await outcomes(version, "ok", "ok")
            assert [predictor.most_open for predictor in made] == [1, 1]
            assert await outcomes(version, *["ok"] * 40) == ["OK"] * 40
            assert [predictor.most_open for predictor in made] == [4, 4]

    run_virtually(story())


def test_an_idle_worker_goes_before_a_busy_one_that_could_take_more() -> None:
    async def story() -> None:
        stage = Stage(lambda size: 0.001)
        async with serving(stage, settings(min_workers=2), make=lambda seat: AheadPredictor(stage, seat)) as version:
            await version.wait_scaled(9.0)
            await outcomes(version, *["ok"] * 20)
            slow = asyncio.create_task(outcomes(version, "ok", "ok", "slow"))  # The slow one is given ahead.
            await asyncio.sleep(0.05)
            async with asyncio.timeout(0.1):
                assert await outcomes(version, "ok") == ["OK"]
                assert await version.describe() is not None
                assert await outcomes(version, *["ok"] * 30) == ["OK"] * 30  # Nothing is put behind the slow one.
            assert await slow == ["OK", "OK", "SLOW"]

    run_virtually(story())


def test_a_new_sequence_is_not_put_behind_a_running_one_while_it_can_begin_elsewhere() -> None:
    async def story() -> None:
        stage = Stage(lambda size: 0.001)
        wanted = settings(min_workers=2, sequences=SequenceSettings(max_sequences=9))
        async with serving(stage, wanted, make=lambda seat: AheadPredictor(stage, seat)) as version:
            await version.wait_scaled(9.0)
            texts = {"a": "slow", "b": "ok", "c": "ok"}
            asking = [
                asyncio.create_task(outcome(version, text, sequence_id=name, starts_sequence=True))
                for name, text in texts.items()
            ]
            await asyncio.sleep(0.1)
            assert [task.done() for task in asking] == [False, True, True]
            assert await asyncio.gather(*asking) == ["SLOW", "OK", "OK"]

    run_virtually(story())


def test_long_calls_are_not_given_ahead() -> None:
    async def story() -> None:
        stage = Stage(lambda size: 0.003)
        made: list[AheadPredictor] = []

        def make(seat: int) -> AheadPredictor:
            made.append(AheadPredictor(stage, seat))
            return made[-1]

        async with serving(stage, settings(), make=make) as version:
            await outcomes(version, *["ok"] * 40)
            assert [predictor.most_open for predictor in made] == [1]

    run_virtually(story())


@pytest.mark.parametrize("kind", [AheadPredictor, CoalescingPredictor])
def test_f03_calls_given_ahead_survive_the_death_of_the_worker(kind: type[AheadPredictor]) -> None:
    async def story() -> None:
        stage = Stage(lambda size: 0.001)
        async with serving(stage, settings(), make=lambda seat: kind(stage, seat)) as version:
            await outcomes(version, "ok", "ok")
            texts = ["ok1", "kill", "ok2", "ok3", "hang", "ok4", "ok5"]
            expected = ["OK1", "WorkerDied", "OK2", "OK3", "WorkerDied", "OK4", "OK5"]
            assert await outcomes(version, *texts) == expected
            begun = [text for (text,) in stage.texts()[2:]]
            assert all(1 <= begun.count(text) <= 2 for text in texts)

    run_virtually(story())


def test_a_handler_s_error_keeps_its_status_and_cause() -> None:
    async def story() -> None:
        async with serving(Stage(), settings()) as version:
            with pytest.raises(HandlerError) as failed:
                await ask(version, "bad")
            assert (failed.value.status, failed.value.cause) == (503, "ValueError: bad")
            assert version.status().workers[0].restarts == 0

    run_virtually(story())
