# Stage 1 to stage 2: one feature vector a slice. What stage 2 waits for goes before the maps, for
# which nothing but the viewer waits.


rule extract_features:
    input:
        checkpoint="results/cnn/{backbone}.pt",
        shard=shard_file,
    output:
        temp("results/features/{backbone}/shard-{shard}.h5"),
    log:
        "logs/extract_features/{backbone}/{shard}.log",
    benchmark:
        "benchmarks/extract_features/{backbone}/{shard}.tsv"
    priority: 1
    conda:
        "../../envs/models.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(720),
    params:
        code=code_digest("extract_features.py"),
    message:
        "Extracting {wildcards.backbone} features of shard {wildcards.shard}"
    script:
        "../scripts/extract_features.py"


rule merge_features:
    input:
        feature_parts,
    output:
        "results/features/{backbone}.h5",
    log:
        "logs/merge_features/{backbone}.log",
    benchmark:
        "benchmarks/merge_features/{backbone}.tsv"
    priority: 1
    conda:
        "../../envs/models.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        code=code_digest("merge_features.py"),
    message:
        "Joining the features of {wildcards.backbone}"
    script:
        "../scripts/merge_features.py"
