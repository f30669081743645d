# Test: figures, ROC plots, report.


rule evaluate:
    input:
        "results/predictions/{lstm}.parquet",
    output:
        "results/metrics/{lstm}.json",
    log:
        "logs/evaluate/{lstm}.log",
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        bootstraps=clotline.section("evaluation", "bootstraps"),
        seed=clotline.section("seed"),
        code=code_digest("evaluate.py"),
    message:
        "Evaluating {wildcards.lstm}"
    script:
        "../scripts/evaluate.py"


rule metrics_table:
    input:
        all_metrics,
    output:
        report(
            "results/metrics.csv",
            caption="../report/metrics.rst",
            category="Evaluation",
        ),
    log:
        "logs/metrics_table.log",
    conda:
        "../../envs/evaluation.yaml"
    params:
        code=code_digest("metrics_table.py"),
    message:
        "Collecting the figures of all models"
    script:
        "../scripts/metrics_table.py"


rule compare:
    input:
        study_predictions,
    output:
        report(
            "results/comparisons.csv",
            caption="../report/comparisons.rst",
            category="Evaluation",
        ),
    log:
        "logs/compare.log",
    conda:
        "../../envs/evaluation.yaml"
    params:
        reference=reference_model,
        code=code_digest("compare.py"),
    message:
        "Comparing the study-level models"
    script:
        "../scripts/compare.py"


rule competition:
    input:
        study="results/predictions/{features}-study.parquet",
        image="results/predictions/{features}-image.parquet",
    output:
        "results/competition/{features}.json",
    log:
        "logs/competition/{features}.log",
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        bootstraps=clotline.section("evaluation", "bootstraps"),
        seed=clotline.section("seed"),
        code=code_digest("competition.py"),
    message:
        "Scoring {wildcards.features} as the competition did"
    script:
        "../scripts/competition.py"


rule roc:
    input:
        "results/metrics/{lstm}.json",
    output:
        svg=report(
            "results/roc/{lstm}.svg",
            caption="../report/roc.rst",
            category="Evaluation",
        ),
        png="results/roc/{lstm}.png",
    log:
        "logs/roc/{lstm}.log",
    conda:
        "../../envs/evaluation.yaml"
    params:
        cfg=clotline.section("plots"),
        code=code_digest("roc.py"),
    message:
        "Plotting the ROC of {wildcards.lstm}"
    script:
        "../scripts/roc.py"


rule roc_all:
    input:
        all_metrics,
    output:
        svg=report(
            "results/roc/all.svg",
            caption="../report/roc.rst",
            category="Evaluation",
        ),
        png="results/roc/all.png",
    log:
        "logs/roc/all.log",
    conda:
        "../../envs/evaluation.yaml"
    params:
        cfg=clotline.section("plots"),
        code=code_digest("roc_all.py"),
    message:
        "Comparing the ROC of all models"
    script:
        "../scripts/roc_all.py"


rule report:
    input:
        metrics=all_metrics,
        table="results/metrics.csv",
        comparisons="results/comparisons.csv",
        competition=competition_scores,
        plan="results/data/plan.parquet",
        slices="results/data/slices.parquet",
        rejects=all_rejects,
        roc=roc_plots,
        models=all_models,
        curves=[*curves("cnn"), *curves("lstm")],
    output:
        "results/report.html",
    log:
        "logs/report.log",
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=code_digest("report.py"),
        template=template_digest,
        config=clotline.section(),
    message:
        "Writing the report"
    script:
        "../scripts/report.py"
