# Stage 2: LSTMs over the slices of a study. Each goes before plots and tables of others.


rule train_lstm:
    input:
        slices="results/data/slices.parquet",
        plan="results/data/plan.parquet",
        features=pipeline.feature_files,
        init=initial_lstm,
    output:
        best="results/lstm/{lstm}.pt",
        history="results/lstm/{lstm}.csv",
    log:
        "logs/train_lstm/{lstm}.log",
    benchmark:
        "benchmarks/train_lstm/{lstm}.tsv"
    priority: 1
    conda:
        "../../envs/models.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(1440),
    params:
        cfg=lstm_section,
        seed=pipeline.section("seed"),
        init=contents(initial_lstm),
        features=pipeline.features_of,
        code=code_digest("train_lstm.py", without=("evaluation.learning",)),
    message:
        "Training the LSTM {wildcards.lstm}"
    script:
        "../scripts/train_lstm.py"


rule predict_lstm:
    input:
        checkpoint="results/lstm/{lstm}.pt",
        slices="results/data/slices.parquet",
        plan="results/data/plan.parquet",
        features=pipeline.feature_files,
    output:
        "results/predictions/{lstm}.parquet",
    log:
        "logs/predict_lstm/{lstm}.log",
    benchmark:
        "benchmarks/predict_lstm/{lstm}.tsv"
    priority: 1
    conda:
        "../../envs/models.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        features=pipeline.features_of,
        code=code_digest("predict_lstm.py"),
    message:
        "Predicting valid and test studies with {wildcards.lstm}"
    script:
        "../scripts/predict_lstm.py"


# A joint network is evaluated as two models, in the order of clotline.feature_sets.models_of.
use rule predict_lstm as predict_joint with:
    output:
        "results/predictions/{lstm}-image.parquet",
        "results/predictions/{lstm}-study.parquet",
    log:
        "logs/predict_joint/{lstm}.log",
    benchmark:
        "benchmarks/predict_joint/{lstm}.tsv"
