# Clotline: CT pulmonary angiography in, two-stage pulmonary embolism detectors and their ROC out.
#   snakemake --profile profiles/local all                 everything
#   snakemake --profile profiles/sge all                   the same on Grid Engine
#   snakemake -n all                                       what would run, and why
#   snakemake --profile profiles/local predict --config predict=FOLDER     new studies


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/cnn.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/lstm.smk"
include: "workflow/rules/folds.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/viewer.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/validate.smk"


rule all:
    default_target: True
    input:
        # Those that take long to make are named so that a deleted one is missed, though what was made
        # of it is still there.
        all_shards("h5"),
        all_features,
        expand("results/activation/{backbone}.h5", backbone=config["cnn"]),
        all_models,
        "results/data/positives.h5",
        curves("cnn"),
        curves("lstm"),
        pipeline.finetuned_curves(),
        plots("roc", ["all"]),
        plots(PLOTS),
        TABLES,
        "results/report.html",
        "results/viewer/index.html",
        "results/viewer/studies",
        "results/models/clotline.zip",


rule predict:
    input:
        PREDICTION,


rule validate:
    input:
        VALIDATION,
