"""What makes small experiments fast on a CPU, and nothing else: without this package every stage makes the same bytes.

Read it last. Each module states its measurements; on a GPU none of it is used.

* `forkserver`: libraries are imported once per run, not once per stage (2 to 5 s each, dozens of stages).
* `process`: the collector and the allocator of a stage's process (1.9 of 4.4 s of start and end; a tenth of sampling).
* `onednn`: float32 linear layers by oneDNN (103 against 235 GFLOP/s on one core of an AMD processor).
"""
