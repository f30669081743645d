# Test: metrics, plots, report.

PLOT_TITLES = {
    "roc": "1 ROC",
    "precision_recall": "2 Precision and recall",
    "calibration": "3 Calibration",
    "confusion": "4 Confusion matrices",
    "decision": "5 Decision curves",
}
TABLES = [
    f"results/{table}.csv"
    for table in (
        "metrics",
        "comparisons",
        "decision_curves",
        "predictive_values",
        "sample_size",
        "submission",
    )
]
SUBMITTED = config["evaluation"]["submission"]
REPORT_PAGE = PROJECT / "workflow" / "report" / "report.html.j2"
# What the pages of reports share.
PAGE_PARTS = [
    PROJECT / "workflow" / "report" / name
    for name in ("parts.html.j2", "decisions.html.j2", "report.css")
]

if EXTERNAL:

    rule external:
        input:
            predictions=pipeline.external_file,
            slices="results/data/slices.parquet",
            plan="results/data/plan.parquet",
        output:
            "results/predictions/{external}.parquet",
        log:
            "logs/external/{external}.log",
        benchmark:
            "benchmarks/external/{external}.tsv"
        conda:
            "../../envs/models.yaml"
        resources:
            mem_mb=growing(8000),
            runtime=growing(30),
        params:
            predictions=contents(pipeline.external_file),
            code=code_digest("external.py"),
        message:
            "Reading the predictions of {wildcards.external}"
        script:
            "../scripts/external.py"


if config["ensembles"]:

    rule ensemble:
        input:
            pipeline.ensemble_members,
        output:
            "results/predictions/{ensemble}.parquet",
        log:
            "logs/ensemble/{ensemble}.log",
        benchmark:
            "benchmarks/ensemble/{ensemble}.tsv"
        conda:
            "../../envs/evaluation.yaml"
        resources:
            mem_mb=growing(8000),
            runtime=growing(30),
        params:
            code=code_digest("ensemble.py"),
        message:
            "Making one model of several: {wildcards.ensemble}"
        script:
            "../scripts/ensemble.py"


rule position_baseline:
    input:
        "results/data/slices.parquet",
    output:
        "results/baselines/position.parquet",
    log:
        "logs/position_baseline.log",
    benchmark:
        "benchmarks/position_baseline.tsv"
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=code_digest("position_baseline.py"),
    message:
        "Predicting slices from their position alone"
    script:
        "../scripts/position_baseline.py"


rule count_baseline:
    input:
        image="results/predictions/{scored}.parquet",
        plan="results/data/plan.parquet",
    output:
        "results/baselines/{scored}.parquet",
    log:
        "logs/count_baseline/{scored}.log",
    benchmark:
        "benchmarks/count_baseline/{scored}.tsv"
    wildcard_constraints:
        scored=".+-image",
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=code_digest("count_baseline.py"),
    message:
        "Predicting studies from the slice scores of {wildcards.scored}"
    script:
        "../scripts/count_baseline.py"


rule evaluate:
    input:
        predictions="results/predictions/{model}.parquet",
        plan="results/data/plan.parquet",
        slices=pipeline.slice_baseline,
        studies=pipeline.study_baseline,
    output:
        "results/metrics/{model}.json",
    log:
        "logs/evaluate/{model}.log",
    benchmark:
        "benchmarks/evaluate/{model}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        scored=pipeline.scored_slices,
        settings=pipeline.evaluation("bootstraps", "thresholds", "prevalences"),
        code=code_digest("evaluate.py"),
    message:
        "Evaluating {wildcards.model}"
    script:
        "../scripts/evaluate.py"


rule metrics_table:
    input:
        metrics=expand("results/metrics/{model}.json", model=MODELS),
        histories=[
            *curves("cnn", "csv"),
            *curves("lstm", "csv"),
            *pipeline.fold_checkpoints("csv"),
            *pipeline.finetuned_curves("csv"),
        ],
    output:
        table=report(
            "results/metrics.csv",
            caption="../report/metrics.rst",
            category="2 All models",
            labels={"result": "Metrics with intervals", "as": "table"},
        ),
        warnings="results/warnings.csv",
    log:
        "logs/metrics_table.log",
    benchmark:
        "benchmarks/metrics_table.tsv"
    conda:
        "../../envs/evaluation.yaml"
    params:
        code=code_digest("metrics_table.py"),
    message:
        "Collecting the metrics of all models"
    script:
        "../scripts/metrics_table.py"


rule decision_tables:
    input:
        expand("results/metrics/{model}.json", model=MODELS),
    output:
        curves="results/decision_curves.csv",
        values="results/predictive_values.csv",
        sizes="results/sample_size.csv",
    log:
        "logs/decision_tables.log",
    benchmark:
        "benchmarks/decision_tables.tsv"
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=code_digest("decision_tables.py"),
    message:
        "Collecting what those who decide ask of all models"
    script:
        "../scripts/decision_tables.py"


rule compare:
    input:
        expand("results/predictions/{model}.parquet", model=MODELS),
    output:
        report(
            "results/comparisons.csv",
            caption="../report/comparisons.rst",
            category="2 All models",
            labels={"result": "Differences of AUROC", "as": "table"},
        ),
    log:
        "logs/compare.log",
    benchmark:
        "benchmarks/compare.tsv"
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        reference=REFERENCE,
        settings=pipeline.evaluation("bootstraps"),
        code=code_digest("compare.py"),
    message:
        "Comparing the models"
    script:
        "../scripts/compare.py"


rule competition:
    input:
        study="results/predictions/{pair}-study.parquet",
        image="results/predictions/{pair}-image.parquet",
    output:
        "results/competition/{pair}.json",
    log:
        "logs/competition/{pair}.log",
    benchmark:
        "benchmarks/competition/{pair}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=pipeline.evaluation("bootstraps"),
        code=code_digest("competition.py"),
    message:
        "Scoring {wildcards.pair} as the competition did"
    script:
        "../scripts/competition.py"


rule submission:
    input:
        study=f"results/predictions/{SUBMITTED}-study.parquet",
        image=f"results/predictions/{SUBMITTED}-image.parquet",
    output:
        "results/submission.csv",
    log:
        "logs/submission.log",
    benchmark:
        "benchmarks/submission.tsv"
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=code_digest("submission.py"),
    message:
        "Writing the predictions in the competition's format"
    script:
        "../scripts/submission.py"


rule plot_evaluation:
    input:
        "results/metrics/{model}.json",
    output:
        [
            report(
                f"results/{plot}/{{model}}.svg",
                caption="../report/evaluation.rst",
                category="3 Each model",
                subcategory="{model}",
                labels={"plot": title},
            )
            for plot, title in PLOT_TITLES.items()
        ],
        model_plots("png"),
    log:
        "logs/plot_evaluation/{model}.log",
    benchmark:
        "benchmarks/plot_evaluation/{model}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    params:
        cfg=pipeline.section("plots"),
        code=code_digest("plot_evaluation.py"),
    message:
        "Plotting the metrics of {wildcards.model}"
    script:
        "../scripts/plot_evaluation.py"


rule roc_all:
    input:
        expand("results/metrics/{model}.json", model=MODELS),
    output:
        svg=report(
            "results/roc/all.svg",
            caption="../report/roc.rst",
            category="2 All models",
            labels={"result": "ROC", "as": "plot"},
        ),
        png="results/roc/all.png",
    log:
        "logs/roc/all.log",
    benchmark:
        "benchmarks/roc/all.tsv"
    conda:
        "../../envs/evaluation.yaml"
    params:
        cfg=pipeline.section("plots"),
        code=code_digest("roc_all.py"),
    message:
        "Comparing the ROC of all models"
    script:
        "../scripts/roc_all.py"


rule report:
    input:
        metrics=expand("results/metrics/{model}.json", model=MODELS),
        warnings="results/warnings.csv",
        comparisons="results/comparisons.csv",
        competition=expand("results/competition/{pair}.json", pair=PAIRS),
        plan="results/data/plan.parquet",
        slices="results/data/slices.parquet",
        rejects=all_shards("rejects.csv"),
        notes=all_shards("notes.csv"),
        facts="results/data/study_facts.parquet",
        patients="results/data/patients.json",
        roc=plots("roc", ["all", *MODELS]),
        precision_recall=plots("precision_recall"),
        calibration=plots("calibration"),
        confusion=plots("confusion"),
        decision=plots("decision"),
        models=all_models,
        curves=[*curves("cnn"), *curves("lstm"), *pipeline.finetuned_curves()],
    output:
        report(
            "results/report.html",
            caption="../report/report.rst",
            category="1 Report and viewer",
            labels={"page": "Report"},
        ),
    log:
        "logs/report.log",
    benchmark:
        "benchmarks/report.tsv"
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        code=code_digest("report.py"),
        template=[sha256(path) for path in (REPORT_PAGE, *PAGE_PARTS)],
        config=pipeline.section(),
    message:
        "Writing the report"
    script:
        "../scripts/report.py"
