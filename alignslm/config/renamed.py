"""Keys that have another name now: old files are answered with the new one."""

# Old key -> what to write instead.
RENAMED = {
    "rounds": "preferences (sampled_from and thresholds) and checkpoints (init_from, train_on, trainer, warmup_steps)",
    "controls": "systems (source: checkpoints/NAME or corpus, and temperature_scale where it is not 1)",
    "given": "imported_preferences, and a checkpoint with train_on: pairs/NAME",
    "trainer": "checkpoints.NAME.trainer, one for each checkpoint",
    "sft": "checkpoints.sft: {init_from: base, train_on: pairs/r1, trainer: sft, warmup_steps: 10}",
    "ntp": "checkpoints.ntp: {init_from: base, train_on: units, trainer: ntp}",
    "prev": "sampled_from in preferences, init_from in checkpoints",
    "chosen_min": "min_chosen_score",
    "rejected_max": "max_rejected_score",
    "margin_min": "min_margin",
    "auto_bleu_max": "max_auto_bleu",
    "warmup_steps": "checkpoints.NAME.warmup_steps",
    "max_s": "max_duration_s",
    "max_units": "max_new_units",
    "normalisation": "reduction",
    "score_eos": "include_eos",
    "training_processes": "num_processes",
    "training_sharding": "fsdp (none or full_shard)",
    "bootstrap": "nothing: intervals are Student's t and Wilson's, and resample nothing",
    "checkpoint": "source: checkpoints/NAME",
}
