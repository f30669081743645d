import inspect

from clotline.workflow.resources import growing


def test_an_amount_grows_with_each_attempt():
    memory = growing(16000)
    assert [memory({}, attempt) for attempt in (1, 2, 3)] == [16000, 32000, 48000]


def test_snakemake_sees_that_the_attempt_is_asked_for():
    assert "attempt" in inspect.signature(growing(30)).parameters
