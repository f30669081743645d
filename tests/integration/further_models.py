"""A run of the tiny cohort with every further kind of model beside the published networks."""

from pathlib import Path

import pandas as pd
import yaml
from workflow_run import ON_TWO_CORES, Run, write_config

from clotline.data import phantom
from clotline.labels import STUDY_UID
from clotline.workflow.config import load_config

LEVELS = ("image", "study")
JOINT = {"epochs": 2, "hidden_size": 8, "cell": "gru", "pooling": ["max", "attention"]}
JOINT |= {"loss": "competition", "calibrate_odds": True}
FOLDS = 3
FINETUNE = {"slices": 3, "batch_size": 2, "epochs": 2, "lr": 0.001, "precision": "32-true"}
#: A video network, trained on some slices of each study.
VIDEO = {"library": "torchvision-video", "architecture": "r3d_18", "init": "random", "planes": 3}
VIDEO |= {"crop": 64, "input_size": 32, "epochs": 1, "study_slices": 4, "precision": "32-true"}
#: Members of the ensembles: by level, and one of a finetuned network.
EVERY = ["combined", "resnext50-joint-folds"]
TUNED = ["combined-study", "resnext50-finetuned-joint-study"]
#: So few slices as `predict` takes of a study.
NEW = {"studies": 2, "seed": 99, "slices_min": 16, "slices_max": 16}


def run_further(run: Run, tiny: Run, folder: Path) -> None:
    """Trains a joint network, folds of it, finetuned networks and ensembles, and applies them.

    Args:
        run: a copy of the tiny run that shares its files.
        tiny: that run.
        folder: for new studies, of which there are predictions and, with labels, a validation.
    """
    config = yaml.safe_load((tiny.folder / "config/config.yaml").read_text())
    config["lstm"]["resnext50-joint"] = JOINT
    config["cnn"]["video"] = VIDEO
    config["lstm"]["video-study"] = {"epochs": 1, "hidden_size": 8}
    config["data"]["split"] |= {"folds": FOLDS, "folds_of": ["resnext50-joint"]}
    config["finetune"] = {"resnext50-joint": FINETUNE, "efficientnet_b0-study": FINETUNE}
    config["ensembles"] = {
        f"every-{level}": [f"{member}-{level}" for member in EVERY] for level in LEVELS
    } | {"tuned-study": TUNED}
    config["evaluation"]["submission"] = "every"
    # Replaced, not written into: it is shared.
    (run.folder / "config/config.yaml").unlink()
    write_config(run, yaml.safe_dump(config))
    run.build(*ON_TWO_CORES, "all")
    settings = load_config({"phantom": NEW})["phantom"]
    phantom.write_cohort(settings, folder / "new", folder / "new.csv", workers=1)
    run.build("predict", "--config", f"predict={folder / 'new'}", "predict_dicom=True")
    labels = pd.read_csv(folder / "new.csv").drop_duplicates(STUDY_UID)
    labels = labels.assign(PE=1 - labels["negative_exam_for_pe"])
    labels[[STUDY_UID, "PE"]].to_csv(folder / "new/labels.csv", index=False)
    run.build("validate", "--config", f"validate={folder / 'new'}")
