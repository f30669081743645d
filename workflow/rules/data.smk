# DICOM files and labels to HDF5.

if config["phantom"] is not None:

    rule phantom:
        output:
            labels=config["data"]["labels"],
            dicom=directory(config["data"]["dicom"]),
        log:
            "logs/phantom.log",
        benchmark:
            "benchmarks/phantom.tsv"
        conda:
            "../../envs/data.yaml"
        threads: 8
        resources:
            mem_mb=growing(4000),
            runtime=growing(60),
        params:
            cfg=pipeline.section("phantom"),
            code=code_digest("phantom.py"),
        message:
            "Writing the CTPA phantom as DICOM files"
        script:
            "../scripts/phantom.py"


# A digest of its rows and splits, not the labels file's name or time, decides what is made again.
# The phantom's labels file is an input, because a rule makes it.
rule plan:
    input:
        phantom=PHANTOM.get("labels", []),
    output:
        plan="results/data/plan.parquet",
        rows="results/data/rows.parquet",
    log:
        "logs/plan.log",
    benchmark:
        "benchmarks/plan.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        content=pipeline.plan_digest,
        # What the files say of patients is in the digest of the splits.
        code=code_digest("plan.py", without=("data.dicom",)),
    message:
        "Planning shards and splits from the labels"
    script:
        "../scripts/plan.py"


rule shard:
    input:
        phantom=PHANTOM.get("dicom", []),
    output:
        shard="results/data/shards/shard-{shard}.h5",
        rejects="results/data/shards/shard-{shard}.rejects.csv",
        notes="results/data/shards/shard-{shard}.notes.csv",
    log:
        "logs/shard/{shard}.log",
    benchmark:
        "benchmarks/shard/{shard}.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        rows=pipeline.shard_digest,
        code=code_digest("shard.py", without=("data.labels_file", "data.plan")),
    message:
        "Decoding shard {wildcards.shard}"
    script:
        "../scripts/shard.py"


rule slices:
    input:
        rows="results/data/rows.parquet",
        shards=all_shards("h5"),
        rejects=all_shards("rejects.csv"),
    output:
        "results/data/slices.parquet",
    log:
        "logs/slices.log",
    benchmark:
        "benchmarks/slices.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        max_rejects=pipeline.section("data", "max_rejects"),
        code=code_digest("slices.py"),
    message:
        "Accounting for every slice"
    script:
        "../scripts/slices.py"


rule patients:
    input:
        plan="results/data/plan.parquet",
        phantom=PHANTOM.get("dicom", []),
    output:
        "results/data/patients.json",
    log:
        "logs/patients.log",
    benchmark:
        "benchmarks/patients.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        group=pipeline.section("data", "split", "group"),
        code=code_digest("patients.py"),
    message:
        "Counting patients who are in several splits"
    script:
        "../scripts/patients.py"


rule study_facts:
    input:
        slices="results/data/slices.parquet",
        shards=all_shards("h5"),
    output:
        "results/data/study_facts.parquet",
    log:
        "logs/study_facts.log",
    benchmark:
        "benchmarks/study_facts.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 8
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        code=code_digest("study_facts.py"),
    message:
        "Telling how each study was made"
    script:
        "../scripts/study_facts.py"


rule positives:
    input:
        slices="results/data/slices.parquet",
        shards=all_shards("h5"),
    output:
        "results/data/positives.h5",
    log:
        "logs/positives.log",
    benchmark:
        "benchmarks/positives.tsv"
    conda:
        "../../envs/data.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        code=code_digest("positives.py"),
    message:
        "Copying the positive slices"
    script:
        "../scripts/positives.py"
