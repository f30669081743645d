# Folds: the same networks, trained again without the studies of each fold.

if config["data"]["split"]["folds"]:

    rule split_fold:
        input:
            plan="results/data/plan.parquet",
            slices="results/data/slices.parquet",
        output:
            plan="results/folds/{fold}/data/plan.parquet",
            slices="results/folds/{fold}/data/slices.parquet",
        log:
            "logs/split_fold/{fold}.log",
        benchmark:
            "benchmarks/split_fold/{fold}.tsv"
        conda:
            "../../envs/data.yaml"
        resources:
            mem_mb=growing(4000),
            runtime=growing(30),
        params:
            folds=pipeline.section("data", "split", "folds"),
            code=code_digest("split_fold.py"),
        message:
            "Dividing the studies for fold {wildcards.fold}"
        script:
            "../scripts/split_fold.py"

    use rule positives as positives_of_fold with:
        input:
            slices="results/folds/{fold}/data/slices.parquet",
            shards=all_shards("h5"),
        output:
            temp("results/folds/{fold}/data/positives.h5"),
        log:
            "logs/positives_of_fold/{fold}.log",
        benchmark:
            "benchmarks/positives_of_fold/{fold}.tsv"

    use rule train_cnn as train_cnn_of_fold with:
        input:
            slices="results/folds/{fold}/data/slices.parquet",
            positives="results/folds/{fold}/data/positives.h5",
            shards=all_shards("h5"),
            imagenet=imagenet_weights,
            init=initial_backbone,
        output:
            best="results/folds/{fold}/cnn/{backbone}.pt",
            last="results/folds/{fold}/cnn/{backbone}.last.pt",
            history="results/folds/{fold}/cnn/{backbone}.csv",
        log:
            "logs/train_cnn_of_fold/{fold}/{backbone}.log",
        benchmark:
            "benchmarks/train_cnn_of_fold/{fold}/{backbone}.tsv"

    use rule extract_features as extract_features_of_fold with:
        input:
            checkpoint="results/folds/{fold}/cnn/{backbone}.pt",
            shard=shard_file,
        output:
            temp("results/folds/{fold}/features/{backbone}/shard-{shard}.h5"),
        log:
            "logs/extract_features_of_fold/{fold}/{backbone}/{shard}.log",
        benchmark:
            "benchmarks/extract_features_of_fold/{fold}/{backbone}/{shard}.tsv"

    use rule merge_features as merge_features_of_fold with:
        output:
            "results/folds/{fold}/features/{backbone}.h5",
        log:
            "logs/merge_features_of_fold/{fold}/{backbone}.log",
        benchmark:
            "benchmarks/merge_features_of_fold/{fold}/{backbone}.tsv"

    use rule train_lstm as train_lstm_of_fold with:
        input:
            slices="results/folds/{fold}/data/slices.parquet",
            plan="results/folds/{fold}/data/plan.parquet",
            features=pipeline.feature_files,
            init=initial_lstm,
        output:
            best="results/folds/{fold}/lstm/{lstm}.pt",
            history="results/folds/{fold}/lstm/{lstm}.csv",
        log:
            "logs/train_lstm_of_fold/{fold}/{lstm}.log",
        benchmark:
            "benchmarks/train_lstm_of_fold/{fold}/{lstm}.tsv"

    use rule predict_lstm as predict_lstm_of_fold with:
        input:
            checkpoint="results/folds/{fold}/lstm/{lstm}.pt",
            slices="results/folds/{fold}/data/slices.parquet",
            plan="results/folds/{fold}/data/plan.parquet",
            features=pipeline.feature_files,
        output:
            "results/folds/{fold}/predictions/{lstm}.parquet",
        log:
            "logs/predict_lstm_of_fold/{fold}/{lstm}.log",
        benchmark:
            "benchmarks/predict_lstm_of_fold/{fold}/{lstm}.tsv"

    use rule predict_lstm_of_fold as predict_joint_of_fold with:
        output:
            "results/folds/{fold}/predictions/{lstm}-image.parquet",
            "results/folds/{fold}/predictions/{lstm}-study.parquet",
        log:
            "logs/predict_joint_of_fold/{fold}/{lstm}.log",
        benchmark:
            "benchmarks/predict_joint_of_fold/{fold}/{lstm}.tsv"

    rule join_folds:
        input:
            parts=pipeline.fold_predictions,
            plan="results/data/plan.parquet",
        output:
            "results/predictions/{features}-folds-{level}.parquet",
        log:
            "logs/join_folds/{features}-{level}.log",
        benchmark:
            "benchmarks/join_folds/{features}-{level}.tsv"
        wildcard_constraints:
            features="[a-z0-9_]+(-joint)?",
            level="image|study",
        conda:
            "../../envs/evaluation.yaml"
        resources:
            mem_mb=growing(8000),
            runtime=growing(30),
        params:
            code=code_digest("join_folds.py"),
        message:
            "Making one model of the folds of {wildcards.features}-{wildcards.level}"
        script:
            "../scripts/join_folds.py"
