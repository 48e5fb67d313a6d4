"""Async tests: `await scaling.run_async()`, in either mode of pytest-asyncio, and cancelling it."""

from __future__ import annotations

import pytest
from tests.plugin.conftest import errors_of

SCALE = "@pytest.mark.scaling\n@pytest.mark.slo(max_batch=2)\n"


@pytest.mark.parametrize(("mode", "mark"), [("strict", "@pytest.mark.asyncio\n"), ("auto", "")])
def test_a_sweep_is_awaited_and_judged(inner, mode, mark):
    inner.tests(f"{mark}{SCALE}async def test_scale(scaling):\n    await scaling.run_async()\n")
    arguments = ("-o", f"asyncio_mode={mode}")
    inner.run(*arguments).assert_outcomes(passed=1)
    missed = inner.run(*arguments, "--openenv-target", "fake,capacity=1")
    missed.assert_outcomes(failed=1)
    missed.stdout.fnmatch_lines(["max_batch 1 < *"])


def test_the_loop_of_the_test_goes_on_meanwhile(inner):
    inner.tests(
        f"{SCALE}async def test_scale(scaling):\n"
        "    beats = 0\n"
        "    async def beat():\n"
        "        nonlocal beats\n"
        "        while True:\n"
        "            await asyncio.sleep(0.01)\n"
        "            beats += 1\n"
        "    beating = asyncio.create_task(beat())\n"
        "    await scaling.run_async()\n"
        "    beating.cancel()\n"
        "    assert beats > 5\n"
    )
    inner.run("-o", "asyncio_mode=auto", "--openenv-target", "fake,seconds=0.2").assert_outcomes(passed=1)


def test_run_in_an_async_test_says_what_to_write_instead(inner, golden):
    inner.tests(f"{SCALE}async def test_scale(scaling):\n    scaling.run()\n")
    result = inner.run("-o", "asyncio_mode=auto")
    result.assert_outcomes(failed=1)
    golden(errors_of(result, ["test_scale"]))


def test_a_cancelled_sweep_ends_soon_and_is_kept_as_interrupted(inner, golden):
    inner.tests(
        f"{SCALE}async def test_scale(scaling):\n"
        "    with pytest.raises(TimeoutError):\n"
        "        async with asyncio.timeout(0.3):\n"
        "            await scaling.run_async()\n"
    )
    result = inner.run("-o", "asyncio_mode=auto", "--openenv-target", "fake,seconds=60")
    assert result.duration < 10
    assert inner.manifest["sweeps"][0]["status"] == inner.manifest["status"] == "interrupted"
    golden(errors_of(result, ["test_scale"]))


def test_what_cannot_be_measured_fails_an_async_test_with_one_line(inner):
    inner.tests(
        "@pytest.mark.scaling(waits=[1])\n@pytest.mark.slo(max_batch=2, wait=1)\n"
        "async def test_scale(scaling):\n    await scaling.run_async()\n"
    )
    result = inner.run("-o", "asyncio_mode=auto", "--openenv-target", "fake,nowait=1")
    result.assert_outcomes(failed=1)
    assert "mark slo(wait=1)" in errors_of(result, ["test_scale"])


def test_a_test_on_another_event_loop_says_what_to_write(inner, golden):
    inner.tests(
        f'@pytest.mark.parametrize("anyio_backend", ["trio"])\n{SCALE}'
        "async def test_of_anyio(scaling, anyio_backend):\n    await scaling.run_async()\n\n"
        f"{SCALE}def test_of_another_plugin(scaling):\n    scaling.run_async().send(None)\n\n"
        f"{SCALE}def test_of_sessions(scaling):\n    scaling.session().__aenter__().send(None)\n"
    )
    result = inner.run("-o", "asyncio_mode=auto")
    result.assert_outcomes(failed=2, errors=1)
    golden(errors_of(result, ["test_of_anyio[trio]", "test_of_another_plugin", "test_of_sessions"]))


def test_an_async_test_that_is_not_marked_for_the_plugin_there_is_says_what_to_write(inner, golden):
    inner.tests(f"{SCALE}async def test_scale(scaling):\n    await scaling.run_async()\n")
    result = inner.run()
    result.assert_outcomes(failed=1)
    golden(errors_of(result, ["test_scale"]))


# Before pytest 8.4 such a test was skipped, and a gate passed that had measured nothing.
@pytest.mark.parametrize("pytest_does", ["fails", "skips"])
@pytest.mark.parametrize("fixture", ["scaling", "openenv_check"])
def test_an_async_test_without_a_plugin_says_which_extra_to_install(inner, monkeypatch, pytest_does, fixture):
    monkeypatch.setattr("pytest_openenv_scale.core.system.find_spec", lambda module: None)
    inner.ini("[pytest]\naddopts = -p tests.plugin.fakes -p no:asyncio\nopenenv_target = fake\n")
    inner.tests(f"{SCALE if fixture == 'scaling' else ''}async def test_scale({fixture}):\n    pass\n")
    if pytest_does == "skips":
        inner.pytester.makeconftest(
            "import pytest\n\ndef pytest_pyfunc_call(pyfuncitem):\n"
            "    pytest.skip('async def function and no async plugin installed (see warnings)')\n"
        )
    result = inner.run()
    result.assert_outcomes(failed=1)
    assert "pip install 'pytest-openenv-scale[asyncio]'" in errors_of(result, ["test_scale"])
    result.stdout.no_fnmatch_line("*another exception*")
