# Stage 1: CNNs on single slices.


rule weights:
    output:
        "resources/weights/{backbone}.pth",
    log:
        "logs/weights/{backbone}.log",
    benchmark:
        "benchmarks/weights/{backbone}.tsv"
    conda:
        "../../envs/models.yaml"
    resources:
        runtime=growing(60),
    params:
        cfg=backbone_weights,
        code=code_digest("weights.py"),
    message:
        "Fetching ImageNet weights of {wildcards.backbone}"
    script:
        "../scripts/weights.py"


rule train_cnn:
    input:
        slices="results/data/slices.parquet",
        positives="results/data/positives.h5",
        shards=all_shards("h5"),
        imagenet=imagenet_weights,
        init=initial_backbone,
    output:
        best="results/cnn/{backbone}.pt",
        last="results/cnn/{backbone}.last.pt",
        history="results/cnn/{backbone}.csv",
    log:
        "logs/train_cnn/{backbone}.log",
    benchmark:
        "benchmarks/train_cnn/{backbone}.tsv"
    conda:
        "../../envs/models.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(16000),
        runtime=growing(2880),
    params:
        cfg=backbone_section,
        seed=pipeline.section("seed"),
        init=contents(initial_backbone),
        # Warnings about a finished training do not change it.
        code=code_digest("train_cnn.py", without=("evaluation.learning",)),
    message:
        "Training {wildcards.backbone}"
    script:
        "../scripts/train_cnn.py"


rule plot_history:
    input:
        "results/{stage}/{name}.csv",
    output:
        report(
            "results/{stage}/{name}.svg",
            caption="../report/history.rst",
            category="Training",
        ),
    log:
        "logs/plot_history/{stage}/{name}.log",
    benchmark:
        "benchmarks/plot_history/{stage}/{name}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    params:
        code=code_digest("plot_history.py"),
    message:
        "Plotting the training of {wildcards.name}"
    script:
        "../scripts/plot_history.py"
