from sqlbak.scheduler.backoff import LONGEST_SECONDS, Backoff


def test_waits_double_up_to_ten_minutes_and_end_with_a_success() -> None:
    backoff = Backoff()
    waits = [backoff.failed("orders", 0.0) for _ in range(9)]
    assert waits[:3] == [15.0, 30.0, 60.0]
    assert waits[-1] == LONGEST_SECONDS
    assert backoff.is_waiting("orders", LONGEST_SECONDS - 1)
    assert not backoff.is_waiting("orders", LONGEST_SECONDS)
    backoff.succeeded("orders")
    assert not backoff.is_waiting("orders", 0.0)
    assert backoff.failed("orders", 0.0) == 15.0


def test_one_item_that_fails_does_not_hold_up_another() -> None:
    backoff = Backoff()
    backoff.failed("orders", 0.0)
    assert not backoff.is_waiting("erp", 0.0)


def test_what_is_gone_is_forgotten() -> None:
    backoff = Backoff()
    for name in ("orders", "erp"):
        backoff.failed(name, 0.0)
    backoff.keep(lambda name: name == "erp")
    assert not backoff.is_waiting("orders", 0.0)
    assert backoff.is_waiting("erp", 0.0)
