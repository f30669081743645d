"""What the machine did to a job, and what the user can do about it."""

from clotline.errors import ClotlineError
from clotline.feature_sets import origin_of
from clotline.job.disk import full_disk, is_full
from clotline.job.shortage import GPU, THREADS, describe, other_holders, shortage

#: Rules whose batches a user sets, with the section of the configuration and the wildcard of its
#: entry.
_BATCHED = {
    "train_cnn": ("cnn", "backbone"),
    "train_lstm": ("lstm", "lstm"),
    "finetune": ("finetune", "lstm"),
}

#: Last line of a job that failed for a reason that a user has to put right: it is not retried.
NOT_AGAIN = "Not tried again: put this right first."


def explain(error: Exception, snakemake) -> str:
    """The last words of a job that ``error`` ended.

    Args:
        error: what the script raised.
        snakemake: the object that Snakemake gives to scripts.
    """
    text = str(error)
    if isinstance(error, ClotlineError):
        # torch puts the traceback of a loading process before its message.
        return text.rpartition(f"{ClotlineError.__name__}: ")[2].strip()
    if is_full(error):
        return str(full_disk(snakemake.output[0], need=0, written=0))
    if lacking := shortage(error):
        advice = _less_on_the_gpu if lacking == GPU else _more_memory
        return f"out of memory ({describe(error)}): {advice(error, snakemake)}"
    return f"{type(error).__name__}: {error}"


def _less_on_the_gpu(error: Exception, snakemake) -> str:
    holders = other_holders(error)
    if holders:
        held = ", ".join(f"process {number} holds {size}" for number, size in holders)
        advice = f"{held} of this GPU: wait for its end, or choose another GPU"
    else:
        advice = "nvidia-smi shows whether another process holds memory of this GPU"
    batches = _smaller_batches(snakemake)
    smaller = f"; or {batches}" if batches else ""
    return f"{advice}{smaller}. More mem_mb, which is the host's memory, does not help"


def _more_memory(error: Exception, snakemake) -> str:
    rule, megabytes = snakemake.rule, snakemake.resources.get("mem_mb")
    if megabytes:
        advice = (
            f"rule {rule} was given mem_mb={megabytes}; give it more, as with "
            f"--set-resources {rule}:mem_mb={2 * megabytes}"
        )
    else:
        advice = f"give rule {rule} more memory (mem_mb)"
    if shortage(error) == THREADS:
        advice += (
            f", or fewer threads, as with --set-threads {rule}=1, or raise the number of processes "
            "that you may have (ulimit -u)"
        )
    batches = _smaller_batches(snakemake)
    return f"{advice}, or {batches}" if batches else advice


def _smaller_batches(snakemake) -> str:
    """Advice to lower the batch size; empty for a rule whose batches the user does not set."""
    rule = snakemake.rule.removesuffix("_of_fold")
    if rule not in _BATCHED or not getattr(snakemake, "config", None):
        return ""
    section, wildcard = _BATCHED[rule]
    name = getattr(snakemake.wildcards, wildcard)
    name = origin_of(name) if section == "finetune" else name
    size = snakemake.config[section][name]["batch_size"]
    return f"lower {section}.{name}.batch_size (now {size})"
