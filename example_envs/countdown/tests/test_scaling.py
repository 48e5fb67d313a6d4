import pytest


@pytest.mark.scaling(batches="1,8,32", steps=12)
@pytest.mark.slo(max_batch=32, step_p99="500ms")
def test_holds_32_sessions(scaling):
    scaling.run()
