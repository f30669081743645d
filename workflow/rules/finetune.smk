# Finetuning: a backbone and a network of stage 2, trained on together. A wildcard lstm here is the
# name of such a network, as winner-finetuned-joint, which was winner-joint.

if config["finetune"]:
    FINETUNED = "|".join(pipeline.finetuned)

    rule finetune:
        input:
            slices="results/data/slices.parquet",
            plan="results/data/plan.parquet",
            shards=all_shards("h5"),
            features=pipeline.origin_features,
            cnn=pipeline.origin_cnn,
            lstm=pipeline.origin_lstm,
        output:
            cnn="results/finetuned/{lstm}/cnn.pt",
            lstm="results/finetuned/{lstm}/lstm.pt",
            history="results/finetuned/{lstm}.csv",
        log:
            "logs/finetune/{lstm}.log",
        benchmark:
            "benchmarks/finetune/{lstm}.tsv"
        wildcard_constraints:
            lstm=FINETUNED,
        conda:
            "../../envs/models.yaml"
        threads: 8
        resources:
            gpu=1,
            mem_mb=growing(16000),
            runtime=growing(2880),
        params:
            cfg=pipeline.origin_section,
            seed=pipeline.section("seed"),
            code=code_digest("finetune.py", without=("evaluation.learning",)),
        message:
            "Training {wildcards.lstm} together with its backbone"
        script:
            "../scripts/finetune.py"

    use rule extract_features as extract_finetuned with:
        input:
            checkpoint="results/finetuned/{lstm}/cnn.pt",
            shard=shard_file,
        output:
            temp("results/finetuned/{lstm}/features/{backbone}/shard-{shard}.h5"),
        log:
            "logs/extract_finetuned/{lstm}/{backbone}/{shard}.log",
        benchmark:
            "benchmarks/extract_finetuned/{lstm}/{backbone}/{shard}.tsv"
        wildcard_constraints:
            lstm=FINETUNED,

    use rule merge_features as merge_finetuned with:
        output:
            "results/finetuned/{lstm}/features/{backbone}.h5",
        log:
            "logs/merge_finetuned/{lstm}/{backbone}.log",
        benchmark:
            "benchmarks/merge_finetuned/{lstm}/{backbone}.tsv"
        wildcard_constraints:
            lstm=FINETUNED,

    use rule predict_lstm as predict_finetuned with:
        input:
            checkpoint="results/finetuned/{lstm}/lstm.pt",
            slices="results/data/slices.parquet",
            plan="results/data/plan.parquet",
            features=pipeline.feature_files,
        log:
            "logs/predict_finetuned/{lstm}.log",
        benchmark:
            "benchmarks/predict_finetuned/{lstm}.tsv"
        wildcard_constraints:
            lstm=FINETUNED,

    use rule predict_finetuned as predict_finetuned_joint with:
        output:
            "results/predictions/{lstm}-image.parquet",
            "results/predictions/{lstm}-study.parquet",
        log:
            "logs/predict_finetuned_joint/{lstm}.log",
        benchmark:
            "benchmarks/predict_finetuned_joint/{lstm}.tsv"
