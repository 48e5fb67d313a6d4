"""What of a command line may be kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_openenv_scale.core.text import redact_command

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("command", "redacted"),
    [
        (["--openenv-header", "Authorization: Bearer s3cr3t"], ("--openenv-header", "Authorization: ***")),
        (["--openenv-header=X-Key: s3cr3t"], ("--openenv-header=X-Key: ***",)),
        (["--openenv-header=s3cr3t"], ("--openenv-header=***",)),
        (["-o", "openenv_header=X-Key: s3cr3t"], ("-o", "openenv_header=***")),
        (["-oopenenv_header=X-Key: s3cr3t"], ("-oopenenv_header=***",)),
        (["--override-ini=openenv_header=A: 1\nB: s3cr3t"], ("--override-ini=openenv_header=***",)),
        (["--override-ini", "openenv_header = s3cr3t"], ("--override-ini", "openenv_header = ***")),
        (["--openenv-url", "https://me:s3cr3t@host/p"], ("--openenv-url", "https://host/p")),
        (["--openenv-url=https://s3cr3t@host"], ("--openenv-url=https://host",)),
        (["wss://me:s3cr3t@a,https://b:s3cr3t@c/x"], ("wss://a,https://c/x",)),
        (["http://me:s3/cr3t@host/x"], ("http://host/x",)),
        (["http://me:s3,cr3t@host/x"], ("http://host/x",)),
        (["http://host/x?token=s3cr3t&n=1,cores=8"], ("http://host/x?token=***&n=***,cores=8",)),
        (["local:app,env.HF_TOKEN=s3cr3t,workers=2"], ("local:app,env.HF_TOKEN=***,workers=2",)),
        (['local:app,env.HF_TOKEN="a, ""b"",s3cr3t",workers=2'], ("local:app,env.HF_TOKEN=***,workers=2",)),
        (['provider:m:C,api_key="a, s3cr3t",workers=2'], ("provider:m:C,api_key=***,workers=2",)),
        (["-o", "openenv_url=http://me:s3cr3t@host"], ("-o", "openenv_url=http://host")),
    ],
)
def test_secrets_are_dropped_however_they_are_written(command, redacted):
    assert redact_command(["pytest", *command]) == ("pytest", *redacted)


@pytest.mark.parametrize(
    "argument",
    [
        "tests/test_scale.py::test_it[a?b=c]",
        "-m",
        "scaling and not slow",
        "--openenv-batches=1,8,32..512",
        "--openenv-target=local:pkg.app:app,server=uvicorn,workers=4",
        "https://host:8000/user/space,cores=8,hardware=cpu-basic",
        "https://host/@me/space",
        "--openenv-slo=total_p99<=2s",
        '{"wait_seconds": "$wait"}',
    ],
)
def test_what_is_no_secret_is_kept_as_it_is(argument):
    assert redact_command([argument]) == (argument,)


password = st.text(
    st.characters(codec="ascii", exclude_characters=" \t\n\r\x0b\x0c@", exclude_categories=["Cc"]), min_size=1
)


@given(password, st.sampled_from(["http", "https", "ws", "wss"]), st.sampled_from(["", "--openenv-url=", "url:"]))
def test_no_password_survives_in_a_url(secret, scheme, before):
    redacted = redact_command([f"{before}{scheme}://me:<{secret}>@host/x"])[0]
    assert f"<{secret}>" not in redacted
    assert redacted.endswith("host/x")
