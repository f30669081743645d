"""How a data set is divided into batches, and batches among processes."""

from collections.abc import Sequence

from lightning_fabric import Fabric

from clotline.errors import ClotlineError


def process_batches(
    order: Sequence[int], batch_size: int, fabric: Fabric, least: int = 1
) -> list[list[int]]:
    """The part of each batch that this process takes.

    Of n processes each takes every n-th index of a batch, starting at its own rank.

    Args:
        order: indices into a data set, in the order in which they are wanted.
        batch_size: indices in a batch, of all processes together.
        fabric: the processes.
        least: indices that each process needs of a batch; a last batch with fewer joins the one
            before it.

    Returns:
        As many batches in each process; together they hold each index once.

    Raises:
        ClotlineError: a batch has too few slices or studies for so many processes.
    """
    if batch_size < least * fabric.world_size:
        raise ClotlineError(
            f"batch_size is {batch_size}, too small for {fabric.world_size} processes that need "
            f"{least} of a batch each: set it to {least * fabric.world_size} or more, or use fewer "
            "GPUs"
        )
    batches = [list(order[at : at + batch_size]) for at in range(0, len(order), batch_size)]
    if len(batches) > 1 and len(batches[-1]) < least * fabric.world_size:
        last = batches.pop()
        batches[-1] += last
    return [batch[fabric.global_rank :: fabric.world_size] for batch in batches]
