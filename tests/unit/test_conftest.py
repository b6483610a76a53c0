from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SKIPPING = """
    import pytest

    def test_runs(): pass

    @pytest.mark.skip(reason="by mark")
    def test_mark(): pass

    def test_call(): pytest.skip("by call")

    @pytest.fixture
    def absent(): pytest.skip("by fixture")

    def test_fixture(absent): pass

    @pytest.mark.xfail(reason="known")
    def test_xfail(): assert False

    @pytest.mark.xfail(reason="never run", run=False)
    def test_xfail_not_run(): pass
"""


BARE = ("-p", "no:randomly", "-p", "no:asyncio")


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text())
    return pytester


def test_skips_fail_in_ci_with_their_reasons(project, monkeypatch):
    monkeypatch.setenv("CI", "true")
    project.makepyfile(SKIPPING)

    result = project.runpytest_inprocess(*BARE)

    # A fixture that skips is reported by pytest as an error of the test's set-up.
    result.assert_outcomes(passed=1, failed=1, errors=2, xfailed=2)
    result.stdout.fnmatch_lines_random([f"*a skip fails in CI: by {how}" for how in ("mark", "call", "fixture")])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_skipped_file_fails_in_ci(project, monkeypatch):
    monkeypatch.setenv("CI", "true")
    project.makepyfile("import pytest; pytest.importorskip('no_such_module_here')")

    result = project.runpytest_inprocess(*BARE)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*a skip fails in CI: could not import 'no_such_module_here'*"])
    assert result.ret == pytest.ExitCode.INTERRUPTED


def test_skips_are_skips_elsewhere(project, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    project.makepyfile(SKIPPING)

    result = project.runpytest_inprocess(*BARE)

    result.assert_outcomes(passed=1, skipped=3, xfailed=2)
    assert result.ret == pytest.ExitCode.OK
