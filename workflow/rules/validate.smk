# The models of a bundle on another labelled cohort. What is found, decoded and predicted, and how, is
# what predict does; what is added are the labels, and what follows from them.

VALIDATION_PAGE = PROJECT / "workflow" / "report" / "validation.html.j2"
# What would lie beside the results of other labels.
VALIDATED = [
    f"results/validate/{name}"
    for name in (
        "predictions.csv",
        "slices.csv",
        "unpredicted.csv",
        "excluded.csv",
        "metrics.json",
        "metrics.csv",
        "figures",
        "report.html",
        "viewer",
    )
]

# What validate makes.
VALIDATION = [
    "results/validate/metrics.csv",
    "results/validate/report.html",
    "results/validate/figures",
    "results/validate/viewer/index.html",
    "results/validate/viewer/studies",
]


use rule find_series as find_cohort with:
    output:
        rows="results/validate/scans.parquet",
        series="results/validate/series.csv",
        left_out="results/validate/left_out.csv",
    log:
        "logs/find_cohort.log",
    benchmark:
        "benchmarks/find_cohort.tsv"
    params:
        key="validate",
        files=pipeline.cohort_scans,
        later=VALIDATED,
        unpredicted="results/validate/unpredicted.csv",
    message:
        "Looking for CTPA series in the cohort"


rule match_labels:
    input:
        rows="results/validate/scans.parquet",
        series="results/validate/series.csv",
        left_out="results/validate/left_out.csv",
    output:
        rows="results/validate/rows.parquet",
        labels="results/validate/labels.parquet",
        unlabelled="results/validate/unlabelled.csv",
        missing="results/validate/missing.csv",
    log:
        "logs/match_labels.log",
    benchmark:
        "benchmarks/match_labels.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        tables=pipeline.cohort_tables,
        description=pipeline.cohort_description,
        recalibration=pipeline.section("evaluation", "recalibration"),
        later=VALIDATED,
        code=code_digest("match_labels.py"),
    message:
        "Putting scans and labels together"
    script:
        "../scripts/match_labels.py"


use rule decode_series as decode_cohort with:
    input:
        rows="results/validate/rows.parquet",
        series="results/validate/series.csv",
    output:
        shard="results/validate/shard-new.h5",
        rejects="results/validate/rejects.csv",
        notes="results/validate/decoding.notes.csv",
    log:
        "logs/decode_cohort.log",
    benchmark:
        "benchmarks/decode_cohort.tsv"
    params:
        key="validate",
        files=pipeline.cohort_scans,
        later=VALIDATED,
        unpredicted="results/validate/unpredicted.csv",
    message:
        "Decoding the cohort"


use rule shift as shift_of_cohort with:
    input:
        shard="results/validate/shard-new.h5",
        notes="results/validate/decoding.notes.csv",
        bundle=pipeline.no_bundle_as_input,
    output:
        shift="results/validate/shift.csv",
        notes="results/validate/notes.csv",
    log:
        "logs/shift_of_cohort.log",
    benchmark:
        "benchmarks/shift_of_cohort.tsv"
    message:
        "Setting the cohort beside the training data"


rule settle_truth:
    input:
        shard="results/validate/shard-new.h5",
        rows="results/validate/rows.parquet",
        labels="results/validate/labels.parquet",
        missing="results/validate/missing.csv",
        bundle=pipeline.no_bundle_as_input,
    output:
        truth="results/validate/truth.parquet",
        slice_truth="results/validate/slice_truth.parquet",
        excluded="results/validate/excluded.csv",
        about="results/validate/about.json",
    log:
        "logs/settle_truth.log",
    benchmark:
        "benchmarks/settle_truth.tsv"
    conda:
        "../../envs/models.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        tables=pipeline.cohort_tables,
        description=pipeline.cohort_description,
        bundle=contents(pipeline.bundle_to_apply),
        code=code_digest("settle_truth.py"),
    message:
        "Settling which studies of the cohort count"
    script:
        "../scripts/settle_truth.py"


use rule apply_models as apply_models_to_cohort with:
    input:
        shard="results/validate/shard-new.h5",
        series="results/validate/series.csv",
        rejects=["results/validate/rejects.csv", "results/validate/unlabelled.csv"],
        truth="results/validate/truth.parquet",
        slice_truth="results/validate/slice_truth.parquet",
        bundle=pipeline.no_bundle_as_input,
    output:
        studies="results/validate/predictions.csv",
        slices="results/validate/slices.csv",
        unpredicted="results/validate/unpredicted.csv",
        activations=directory("results/validate/activation"),
        selection="results/validate/viewer/selection.json",
        selected_slices="results/validate/viewer/slices.parquet",
    log:
        "logs/apply_models_to_cohort.log",
    benchmark:
        "benchmarks/apply_models_to_cohort.tsv"
    params:
        # DICOM results are of predict alone, and are not touched.
        all_maps="false",
        later=[],
    message:
        "Applying the models to the cohort"


rule validate_models:
    input:
        shard="results/validate/shard-new.h5",
        rows="results/validate/rows.parquet",
        studies="results/validate/predictions.csv",
        slices="results/validate/slices.csv",
        truth="results/validate/truth.parquet",
        slice_truth="results/validate/slice_truth.parquet",
        about="results/validate/about.json",
        bundle=pipeline.no_bundle_as_input,
    output:
        metrics="results/validate/metrics.json",
        table="results/validate/metrics.csv",
    log:
        "logs/validate_models.log",
    benchmark:
        "benchmarks/validate_models.tsv"
    conda:
        "../../envs/models.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        tables=pipeline.cohort_tables,
        description=pipeline.cohort_description,
        bundle=contents(pipeline.bundle_to_apply),
        settings=pipeline.evaluation("bootstraps", "thresholds", "prevalences"),
        code=code_digest("validate_models.py"),
    message:
        "Evaluating the models on the cohort"
    script:
        "../scripts/validate_models.py"


rule validation_report:
    input:
        metrics="results/validate/metrics.json",
        truth="results/validate/truth.parquet",
        slice_truth="results/validate/slice_truth.parquet",
        series="results/validate/series.csv",
        left_out="results/validate/left_out.csv",
        excluded="results/validate/excluded.csv",
        unpredicted="results/validate/unpredicted.csv",
        notes="results/validate/notes.csv",
    output:
        page="results/validate/report.html",
        figures=directory("results/validate/figures"),
    log:
        "logs/validation_report.log",
    benchmark:
        "benchmarks/validation_report.tsv"
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        plots=pipeline.section("plots"),
        settings=pipeline.evaluation("bootstraps", "recalibration"),
        code=code_digest("validation_report.py"),
        template=[sha256(path) for path in (VALIDATION_PAGE, *PAGE_PARTS)],
    message:
        "Writing the report of the validation"
    script:
        "../scripts/validation_report.py"


use rule viewer as viewer_of_cohort with:
    input:
        studies="results/validate/viewer/selection.json",
        slices="results/validate/viewer/slices.parquet",
        activations=["results/validate/activation"],
        shards=["results/validate/shard-new.h5"],
        notes=["results/validate/notes.csv"],
        shift="results/validate/shift.csv",
        series="results/validate/series.csv",
        unpredicted="results/validate/unpredicted.csv",
    output:
        index="results/validate/viewer/index.html",
        studies=directory("results/validate/viewer/studies"),
    log:
        "logs/viewer_of_cohort.log",
    benchmark:
        "benchmarks/viewer_of_cohort.tsv"
    params:
        subject=["study of the cohort", "studies of the cohort"],
    message:
        "Writing the viewer of the cohort"
