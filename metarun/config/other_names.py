"""What other programs call a thing that has another name here, for the remedy in a message. Nothing is taken for it."""

KEYS = {  # keys of a config
    **dict.fromkeys(("out", "output", "output_dir", "outdir", "logdir", "save_dir"), "hydra.run.dir"),
    **dict.fromkeys(("epochs", "iterations", "iters", "num_steps", "max_steps"), "meta_steps"),
    **dict.fromkeys(("batch_size", "meta_batch_size", "tasks_per_batch"), "meta_batch"),
    **dict.fromkeys(("way", "n_way", "nway", "num_ways"), "data.ways"),
    **dict.fromkeys(("shot", "k_shot", "kshot", "num_shots"), "data.shots"),
    **dict.fromkeys(("query", "q_queries", "num_queries"), "data.queries"),
    **dict.fromkeys(("outer_lr", "meta_learning_rate", "outer_learning_rate"), "algo.meta_lr"),
    **dict.fromkeys(("inner_learning_rate", "step_size", "adaptation_lr"), "algo.inner_lr"),
    **{"name": "hydra.run.dir", "gpu": "device", "dataset": "data", "algorithm": "algo", "wandb": "logger"},
}
CHOICES = {  # choices, by group
    "device": {"gpu": "cuda", "gpus": "cuda", "cuda:0": "cuda", "none": "cpu"},
    "data": {"images_folder": "images", "folder": "images", "csv": "table", "sine": "sinusoid", "mnist": "torchvision"},
    "algo": {"prototypical": "protonet", "proto": "protonet", "maml++": "maml_pp"},
    "model": {"cnn": "conv4", "convnet": "conv4", "resnet": "resnet12"},
}
VERBS = {  # what is typed instead of the verb
    **dict.fromkeys(("list", "runs", "status", "ps"), "metarun ls"),
    **dict.fromkeys(("predict", "infer", "apply", "classify", "finetune"), "metarun adapt"),
    **dict.fromkeys(("train", "fit", "start", "sweep"), "metarun key=value ..., which has no verb"),
    **dict.fromkeys(("test", "evaluate", "validate"), "metarun eval"),
    **dict.fromkeys(("info", "describe", "inspect", "cat", "log", "logs"), "metarun show"),
    **dict.fromkeys(("plot", "html", "curves"), "metarun report"),
    **dict.fromkeys(("continue", "restart"), "metarun resume"),
    **dict.fromkeys(("rerun", "repeat", "replicate"), "metarun reproduce"),
    **dict.fromkeys(("delete", "remove", "clean"), "metarun rm"),
    **dict.fromkeys(("compare", "results", "summary"), "metarun table"),
    **dict.fromkeys(("tail", "follow", "monitor", "top"), "metarun watch"),
    **dict.fromkeys(("config", "options", "settings", "man"), "metarun explain"),
    **dict.fromkeys(("version",), "metarun --version"),
}
