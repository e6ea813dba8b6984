import os

import pytest

from jaxsec import _native


@pytest.fixture
def native() -> None:
    """The compiled targets. Missing ones skip the test, or fail it where JAXSEC_REQUIRE_NATIVE is set."""
    if not _native.available():
        reason = f"native code is not there ({_native.status()}); pip install -e ."
        if os.environ.get("JAXSEC_REQUIRE_NATIVE"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(params=["native", "twin"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test with native code (where it is there) and without."""
    if request.param == "native":
        request.getfixturevalue("native")
    else:
        monkeypatch.setenv("JAXSEC_NATIVE", "0")
        assert not _native.available()
    return request.param
