import pytest
from integration.hostile_run import run
from integration.worker_process import deployed


@pytest.fixture
def deployment(bootstrap_servers, redis_url, unique_name, tmp_path):
    with deployed(bootstrap_servers, redis_url, unique_name, tmp_path) as deployment:
        yield deployment


@pytest.mark.timeout(300)  # seconds are enough, but not on a machine that does ten other things
def test_hostile_records_are_each_counted_once_and_harm_no_other(deployment):
    """The short form of `make hostile`; memory is judged there, where it has time to grow."""
    summary = run(deployment, 20_000, seed=1)
    assert summary.wrong == [], str(summary)
    assert summary.counts[1] > 5000
    assert summary.counts[2] > 5000
    assert len(summary.reasons) >= 12, "nearly every reason has its records"
