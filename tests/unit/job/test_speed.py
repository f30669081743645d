from types import SimpleNamespace

import pytest

from clotline.job.speed import inference_batch_size, loading_processes


def devices(kind, count=1):
    return SimpleNamespace(device=SimpleNamespace(type=kind), world_size=count)


def test_on_a_cpu_no_further_process_loads(fabric):
    assert loading_processes(4, fabric) == 0


@pytest.mark.parametrize(("threads", "gpus", "each"), [(8, 1, 8), (8, 2, 4), (8, 3, 2), (1, 2, 1)])
def test_on_gpus_all_threads_load_and_one_for_each_at_least(threads, gpus, each):
    assert loading_processes(threads, devices("cuda", gpus)) == each


def test_a_gpu_has_batches_of_its_own_where_nothing_is_trained(fabric):
    assert inference_batch_size(32, fabric) == 32
    assert inference_batch_size(32, devices("cuda")) == 256
