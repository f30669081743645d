"""About how many GPU hours, CPU hours and bytes of disk a list of jobs will take."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from clotline.feature_sets import backbones_of, origin_of
from clotline.grid import SIZE
from clotline.job.disk import SLICE_BYTES, slice_bytes
from clotline.job.files import files_under
from clotline.sections.cnn import CNNSection, cnn_sections
from clotline.sections.finetune import finetune_sections
from clotline.sections.lstm import LSTMSection, lstm_sections
from clotline.workflow.architectures import width

#: Slices a second of one V100 in float32, in training and in inference, by architecture: NVIDIA's
#: published rates (github.com/NVIDIA/DeepLearningExamples, PyTorch/Classification/ConvNets).
GPU_RATES = {"efficientnet-b0": (655, 2743)}
#: NVIDIA's rates of ResNeXt-101 32x4d (150 and 486) times 1.9, the ratio of multiply-adds; used for
#: every architecture that is not listed.
RESNEXT50_RATES = (285, 923)
#: Side in pixels of the inputs of which these are the rates; they go by an input's area.
RATED_INPUT = 224
#: Slices a second of one core of an EPYC server: measured on 586 slices of real chest CT (JPEG
#: Lossless, 512 × 512; uncompressed files go faster), and on the demo's phantom.
DECODED = 120
COPIED = 10000
JOINED = 20000
LSTM_STEPS = 18000
#: Multiply-adds a slice of the network that gave LSTM_STEPS: 64 units on 3328 features.
LSTM_WORK = 4 * 64 * (3328 + 64)
#: Seconds of a job without a rate of its own: start-up, a plot, a bootstrap.
SMALL_JOB = 20
#: Bytes of one number in a features file.
FLOAT16 = 2

_RESNEXT, _EFFICIENTNET = RESNEXT50_RATES, GPU_RATES["efficientnet-b0"]
BASIS = f"""\
GPU hours: one V100 in float32, by NVIDIA's published rates: {_RESNEXT[0]} (ResNeXt-50) and
{_EFFICIENTNET[0]} (EfficientNet-B0) slices/s in training, {_RESNEXT[1]} and {_EFFICIENTNET[1]} in \
inference; an H100 takes
a fifth of them (bench/results-gpu.md). CPU hours: all cores that jobs hold; one decodes
{DECODED} slices/s. Disk: {SLICE_BYTES // 1000} KB a slice of {SIZE} × {SIZE}. Both were measured \
on real chest CT.
All may be off by a factor of two, and of networks other than these two, which are taken for
ResNeXt-50, by more: each job's log says how fast it really goes."""
HEAD = """\
                            each asks for                   all take about
rule                   jobs  GPU cores      GB hours at most    GPU hours    CPU hours   disk GB"""


@dataclass(frozen=True)
class PlannedJob:
    """A job that would run.

    Attributes:
        rule: its rule.
        wildcards: their values by name.
        threads: cores that it asks for.
        gpus: GPUs that it asks for.
        mem_mb: memory that it asks for, in MB; 0 where nothing is said.
        runtime: the longest that it may take, in minutes; 0 where nothing is said.
    """

    rule: str
    wildcards: dict[str, str]
    threads: int
    gpus: int
    mem_mb: int
    runtime: int


class Data:
    """How much data there is.

    Attributes:
        config: the complete configuration.
        shards: slices by shard.
        slices, positives: of all splits, and by split.
    """

    def __init__(self, config: dict, shards: dict[str, dict]):
        self.config = config
        self.shards = {name: shard["slices"] for name, shard in shards.items()}
        self._described = shards
        self.slices, self.positives = Counter(), Counter()
        for shard in shards.values():
            self.slices.update(shard["split_slices"])
            self.positives.update(shard["split_positives"])

    @cached_property
    def cnn(self) -> dict[str, CNNSection]:
        """The backbones' sections of the configuration."""
        return cnn_sections(self.config)

    @cached_property
    def lstm(self) -> dict[str, LSTMSection]:
        """The LSTMs' sections of the configuration."""
        return lstm_sections(self.config)

    @property
    def slice_bytes(self) -> int:
        """Bytes of a stored slice."""
        return slice_bytes(self.config["data"]["size"])

    @cached_property
    def studies(self) -> int:
        """Number of the studies of all splits."""
        return sum(shard["studies"] for shard in self._described.values())

    @cached_property
    def train_studies(self) -> float:
        """Number of the studies of train, about: of what is described by shard."""
        return self.studies * self.slices["train"] / max(self.slices.total(), 1)

    @cached_property
    def new_files(self) -> int:
        """Number of the files to predict."""
        return self._files("predict")

    @cached_property
    def cohort_files(self) -> int:
        """Number of the files of the cohort to validate on."""
        return self._files("validate")

    def _files(self, key: str) -> int:
        return len(files_under(self.config[key])) if self.config[key] else 0

    def gpu_rates(self, job: PlannedJob) -> tuple[float, float]:
        """Slices a second of a job's backbone, in training and in inference."""
        return _rates(self.cnn[job.wildcards["backbone"]])

    def feature_bytes(self, job: PlannedJob) -> int:
        """Bytes of one slice's features of a job's backbone."""
        return FLOAT16 * width(self.cnn[job.wildcards["backbone"]])


def _rates(section: CNNSection) -> tuple[float, float]:
    training, inference = GPU_RATES.get(section.architecture, RESNEXT50_RATES)
    larger = (section.input_size / RATED_INPUT) ** 2
    if section.is_video:
        # Planes are frames there, each of which is computed on.
        larger *= section.planes
    return training / larger, inference / larger


def _shard(job: PlannedJob, data: Data) -> tuple[float, float]:
    slices = data.shards[job.wildcards["shard"]]
    return slices / DECODED / job.threads, slices * data.slice_bytes


def _positives(job: PlannedJob, data: Data) -> tuple[float, float]:
    slices = data.positives["train"] + data.positives["valid"]
    return slices / COPIED, slices * data.slice_bytes


def _train_cnn(job: PlannedJob, data: Data) -> tuple[float, float]:
    section, (training, inference) = data.cnn[job.wildcards["backbone"]], data.gpu_rates(job)
    if section.study_slices is None:
        trained = sum(section.epoch_counts(data.positives["train"]))
        validated = data.positives["valid"] / section.positive_share
    else:
        trained = min(data.train_studies * section.study_slices, data.slices["train"])
        validated = data.slices["valid"]
    return section.epochs * (trained / training + validated / inference), 0


def _extract_features(job: PlannedJob, data: Data) -> tuple[float, float]:
    return data.shards[job.wildcards["shard"]] / data.gpu_rates(job)[1], 0


def _activation(job: PlannedJob, data: Data) -> tuple[float, float]:
    return data.slices["test"] / data.gpu_rates(job)[1], 0


def _merge_features(job: PlannedJob, data: Data) -> tuple[float, float]:
    slices = data.slices.total()
    # The shards' own files are deleted afterwards, but until then both are there.
    return slices / JOINED, 2 * slices * data.feature_bytes(job)


def _train_lstm(job: PlannedJob, data: Data) -> tuple[float, float]:
    epochs = data.lstm[job.wildcards["lstm"]].epochs
    slices = data.slices["train"] + data.slices["valid"]
    return epochs * slices / _lstm_steps(job, data), 0


def _finetune(job: PlannedJob, data: Data) -> tuple[float, float]:
    name = origin_of(job.wildcards["lstm"])
    section = finetune_sections(data.config)[name]
    (backbone,) = backbones_of(data.config, name)
    rates = _rates(data.cnn[backbone])
    # Of a train study its most suspicious slices, of a valid one all.
    trained = min(data.slices["train"], data.train_studies * section.slices)
    return section.epochs * (trained / rates[0] + data.slices["valid"] / rates[1]), 0


def _predict_lstm(job: PlannedJob, data: Data) -> tuple[float, float]:
    return (data.slices["valid"] + data.slices["test"]) / _lstm_steps(job, data), 0


def _lstm_steps(job: PlannedJob, data: Data) -> float:
    """Slices a second: a network of more work than the published ones has fewer, in proportion."""
    name = origin_of(job.wildcards["lstm"])
    section = data.lstm[name]
    features = sum(width(data.cnn[backbone]) for backbone in backbones_of(data.config, name))
    return LSTM_STEPS / max(1.0, multiply_adds(section, features) / LSTM_WORK)


def multiply_adds(section: LSTMSection, features: int) -> int:
    """Of a network's layers but its heads, for a slice that it reads forwards."""
    projected = section.projection or features
    work = features * projected if section.projection else 0
    inputs = projected * (3 if section.neighbour_differences else 1)
    directions = 2 if section.bidirectional else 1
    gates = {"lstm": 4, "gru": 3}[section.cell]
    for _ in range(section.layers):
        work += directions * gates * section.hidden_size * (inputs + section.hidden_size)
        inputs = directions * section.hidden_size
    return work


def _decode_series(job: PlannedJob, data: Data) -> tuple[float, float]:
    return _decode(data.new_files, job, data)


def _decode_cohort(job: PlannedJob, data: Data) -> tuple[float, float]:
    return _decode(data.cohort_files, job, data)


def _decode(files: int, job: PlannedJob, data: Data) -> tuple[float, float]:
    # As if the models were those that would be trained here.
    return files / DECODED / job.threads, files * data.slice_bytes


def _apply_models(job: PlannedJob, data: Data) -> tuple[float, float]:
    return _apply(data.new_files, data)


def _apply_models_to_cohort(job: PlannedJob, data: Data) -> tuple[float, float]:
    return _apply(data.cohort_files, data)


def _apply(files: int, data: Data) -> tuple[float, float]:
    # As if the models were those that would be trained here.
    rates = [_rates(section)[1] for section in data.cnn.values()]
    return sum(files / rate for rate in rates), 0


#: By rule: seconds that a job takes after starting up, and bytes that it needs on the disk.
COSTS: dict[str, Callable[[PlannedJob, Data], tuple[float, float]]] = {
    "shard": _shard,
    "positives": _positives,
    "train_cnn": _train_cnn,
    "extract_features": _extract_features,
    "merge_features": _merge_features,
    "train_lstm": _train_lstm,
    "predict_lstm": _predict_lstm,
    "predict_joint": _predict_lstm,
    # A fold's training has about as many slices as the one on train.
    "positives_of_fold": _positives,
    "train_cnn_of_fold": _train_cnn,
    "extract_features_of_fold": _extract_features,
    "merge_features_of_fold": _merge_features,
    "train_lstm_of_fold": _train_lstm,
    "predict_lstm_of_fold": _predict_lstm,
    "predict_joint_of_fold": _predict_lstm,
    "finetune": _finetune,
    "extract_finetuned": _extract_features,
    "merge_finetuned": _merge_features,
    "predict_finetuned": _predict_lstm,
    "predict_finetuned_joint": _predict_lstm,
    "activation": _activation,
    "decode_series": _decode_series,
    "apply_models": _apply_models,
    "decode_cohort": _decode_cohort,
    "apply_models_to_cohort": _apply_models_to_cohort,
}


def estimate(jobs: Iterable[PlannedJob], data: Data) -> str:
    """A table of what the jobs ask for and will about take, a line per rule, and its basis."""
    rules: dict[str, list[PlannedJob]] = {}
    for job in jobs:
        rules.setdefault(job.rule, []).append(job)
    lines, sums = [HEAD], Counter()
    for rule, group in rules.items():
        costs = [COSTS[rule](job, data) if rule in COSTS else (0, 0) for job in group]
        hours = sum(SMALL_JOB + seconds for seconds, _ in costs) / 3600
        job = group[0]
        cost = {
            "jobs": len(group),
            "gpu": hours * job.gpus,
            "cpu": hours * job.threads,
            "disk": sum(size for _, size in costs) / 1e9,
        }
        sums.update(cost)
        memory, runtime = (
            f"{value:g}" if value else "-" for value in (job.mem_mb / 1000, job.runtime / 60)
        )
        asked = f"{job.gpus:>5}{job.threads:>6}{memory:>8}{runtime:>14}"
        lines.append(_line(rule, asked, cost))
    return "\n".join([*lines, _line("all of them", " " * 33, sums), BASIS])


def _line(name: str, asked: str, cost: dict[str, float]) -> str:
    return (
        f"{name:<22}{cost['jobs']:>5,}{asked}"
        f"{cost['gpu']:>13,.1f}{cost['cpu']:>13,.1f}{cost['disk']:>10,.1f}"
    )
