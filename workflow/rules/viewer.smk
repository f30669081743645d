# A page to look at test studies, with what the networks see in them.

import sys

from clotline.workflow.snakefile import asks_for_zip

VIEWER_PAGE = PROJECT / "workflow" / "report" / "viewer"
# Snakemake's report takes the page with its slices as a ZIP file, else the page alone.
IN_ZIP = asks_for_zip(sys.argv)
IN_REPORT = {
    "caption": "../report/viewer.rst",
    "category": "1 Report and viewer",
    "labels": {"page": "Viewer"},
}


rule select_studies:
    input:
        slices="results/data/slices.parquet",
        predictions=expand("results/predictions/{model}.parquet", model=OWN_MODELS),
        metrics=expand("results/metrics/{model}.json", model=MODELS),
    output:
        studies="results/viewer/selection.json",
        slices="results/viewer/slices.parquet",
    log:
        "logs/select_studies.log",
    benchmark:
        "benchmarks/select_studies.tsv"
    conda:
        "../../envs/evaluation.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        studies=pipeline.section("viewer", "studies"),
        data=pipeline.sections("phantom", "data"),
        code=code_digest("select_studies.py"),
    message:
        "Choosing the studies of the viewer"
    script:
        "../scripts/select_studies.py"


# Of all test slices, so that another choice of studies reruns no map.
rule activation:
    input:
        checkpoint="results/cnn/{backbone}.pt",
        slices="results/data/slices.parquet",
        shards=all_shards("h5"),
    output:
        "results/activation/{backbone}.h5",
    log:
        "logs/activation/{backbone}.log",
    benchmark:
        "benchmarks/activation/{backbone}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        code=code_digest("activation.py"),
    message:
        "Making the activation maps of {wildcards.backbone}"
    script:
        "../scripts/activation.py"


rule viewer:
    input:
        studies="results/viewer/selection.json",
        slices="results/viewer/slices.parquet",
        activations=expand("results/activation/{backbone}.h5", backbone=config["cnn"]),
        shards=all_shards("h5"),
        notes=all_shards("notes.csv"),
        # Of test studies the labels file names the series, and the report accounts for all and
        # tells how the splits differ.
        shift=[],
        series=[],
        unpredicted=[],
    output:
        index=(
            "results/viewer/index.html"
            if IN_ZIP
            else report("results/viewer/index.html", **IN_REPORT)
        ),
        studies=(
            report(
                directory("results/viewer/studies"),
                htmlindex="index.html",
                **IN_REPORT,
            )
            if IN_ZIP
            else directory("results/viewer/studies")
        ),
    log:
        "logs/viewer.log",
    benchmark:
        "benchmarks/viewer.tsv"
    conda:
        "../../envs/models.yaml"
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        subject=["test study", "test studies"],
        template=[sha256(path) for path in sorted(VIEWER_PAGE.iterdir())],
        code=code_digest("viewer.py"),
    message:
        "Writing the viewer"
    script:
        "../scripts/viewer.py"
