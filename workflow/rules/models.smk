# The trained models in one file, and what they say of new studies. Nothing here is below the
# training: a bundle is applied as it is.

# The studies of which nothing can be said. Not an output of the rules that find and decode: where no
# study is left they fail, and Snakemake removes what a failed job has written.
UNPREDICTED = "results/predict/unpredicted.csv"
# For other software, where the configuration asks for them.
DICOM_RESULTS = ["results/predict/dicom.csv", "results/predict/dicom"]
# What would lie beside the results of other studies.
PREDICTED = [
    "results/predict/notes.csv",
    "results/predict/shift.csv",
    "results/predict/predictions.csv",
    "results/predict/slices.csv",
    UNPREDICTED,
    "results/predict/viewer",
    *DICOM_RESULTS,
]

# What predict makes.
PREDICTION = [
    "results/predict/predictions.csv",
    "results/predict/slices.csv",
    "results/predict/viewer/index.html",
    "results/predict/viewer/studies",
    *(DICOM_RESULTS if config["predict_dicom"] else []),
]


rule bundle:
    input:
        cnns=expand("results/cnn/{name}.pt", name=config["cnn"]),
        lstms=expand("results/lstm/{name}.pt", name=config["lstm"]),
        folds=pipeline.fold_checkpoints(),
        finetuned=pipeline.finetuned_checkpoints(),
        metrics=expand("results/metrics/{model}.json", model=OWN_MODELS),
        facts="results/data/study_facts.parquet",
        plan="results/data/plan.parquet",
        slices="results/data/slices.parquet",
    output:
        "results/models/clotline.zip",
    log:
        "logs/bundle.log",
    benchmark:
        "benchmarks/bundle.tsv"
    conda:
        "../../envs/models.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        cfg=pipeline.bundled_sections(),
        size=pipeline.section("data", "size"),
        crop=pipeline.section("data", "crop"),
        code=code_digest("bundle.py"),
    message:
        "Packing the models"
    script:
        "../scripts/bundle.py"


rule find_series:
    output:
        rows="results/predict/rows.parquet",
        series="results/predict/series.csv",
        left_out="results/predict/left_out.csv",
    log:
        "logs/find_series.log",
    benchmark:
        "benchmarks/find_series.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        key="predict",
        files=pipeline.new_files,
        later=PREDICTED,
        unpredicted=UNPREDICTED,
        series=pipeline.section("series"),
        code=code_digest("find_series.py"),
    message:
        "Looking for CTPA series in the new files"
    script:
        "../scripts/find_series.py"


rule decode_series:
    input:
        rows="results/predict/rows.parquet",
        series="results/predict/series.csv",
    output:
        shard="results/predict/shard-new.h5",
        rejects="results/predict/rejects.csv",
        # All notes together are of the rule shift.
        notes="results/predict/decoding.notes.csv",
    log:
        "logs/decode_series.log",
    benchmark:
        "benchmarks/decode_series.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        key="predict",
        files=pipeline.new_files,
        later=PREDICTED,
        unpredicted=UNPREDICTED,
        strict=pipeline.section("predict_strict"),
        grid=pipeline.bundle_grid,
        code=code_digest("decode_series.py"),
    message:
        "Decoding the new studies"
    script:
        "../scripts/decode_series.py"


rule shift:
    input:
        shard="results/predict/shard-new.h5",
        notes="results/predict/decoding.notes.csv",
        bundle=pipeline.no_bundle_as_input,
    output:
        shift="results/predict/shift.csv",
        notes="results/predict/notes.csv",
    log:
        "logs/shift.log",
    benchmark:
        "benchmarks/shift.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 8
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        bundle=contents(pipeline.bundle_to_apply),
        code=code_digest("shift.py"),
    message:
        "Setting the new studies beside the training data"
    script:
        "../scripts/shift.py"


rule apply_models:
    input:
        shard="results/predict/shard-new.h5",
        series="results/predict/series.csv",
        rejects=["results/predict/rejects.csv"],
        # Of new studies nobody knows what is true.
        truth=[],
        slice_truth=[],
        bundle=pipeline.no_bundle_as_input,
    output:
        studies="results/predict/predictions.csv",
        slices="results/predict/slices.csv",
        unpredicted=UNPREDICTED,
        activations=directory("results/predict/activation"),
        selection="results/predict/viewer/selection.json",
        selected_slices="results/predict/viewer/slices.parquet",
    log:
        "logs/apply_models.log",
    benchmark:
        "benchmarks/apply_models.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(16000),
        runtime=growing(720),
    params:
        studies=pipeline.section("viewer", "studies"),
        # The DICOM results have maps of every study, the viewer of those that it shows.
        all_maps=pipeline.section("predict_dicom"),
        later=DICOM_RESULTS,
        bundle=contents(pipeline.bundle_to_apply),
        code=code_digest("apply_models.py"),
    message:
        "Applying the models to the new studies"
    script:
        "../scripts/apply_models.py"


rule dicom_results:
    input:
        rows="results/predict/rows.parquet",
        shard="results/predict/shard-new.h5",
        predictions="results/predict/predictions.csv",
        selection="results/predict/viewer/selection.json",
        activations="results/predict/activation",
    output:
        table="results/predict/dicom.csv",
        folder=directory("results/predict/dicom"),
    log:
        "logs/dicom_results.log",
    benchmark:
        "benchmarks/dicom_results.tsv"
    conda:
        "../../envs/dicom.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        bundle=contents(pipeline.bundle_to_apply),
        # Maps of every study are there only then.
        key=pipeline.section("predict_dicom"),
        code=code_digest("dicom_results.py"),
    message:
        "Writing the DICOM results"
    script:
        "../scripts/dicom_results.py"


use rule viewer as viewer_of_new_studies with:
    input:
        studies="results/predict/viewer/selection.json",
        slices="results/predict/viewer/slices.parquet",
        activations=["results/predict/activation"],
        shards=["results/predict/shard-new.h5"],
        notes=["results/predict/notes.csv"],
        shift="results/predict/shift.csv",
        series="results/predict/series.csv",
        unpredicted=UNPREDICTED,
    output:
        index="results/predict/viewer/index.html",
        studies=directory("results/predict/viewer/studies"),
    log:
        "logs/viewer_of_new_studies.log",
    benchmark:
        "benchmarks/viewer_of_new_studies.tsv"
    params:
        subject=["new study", "new studies"],
    message:
        "Writing the viewer of the new studies"
