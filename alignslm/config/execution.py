"""How results are computed, never what they are: no stage and no artifact depends on it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignslm.config.model import Config, Few, PositiveCount

Replicas = Annotated[Literal["auto"] | Few, Field(description="copies of a model, each in its own process")]


class Execution(Config):
    """Settings of a machine, or of a cluster. docs/scaling.md explains when to change which."""

    device: Literal["auto", "cpu", "cuda"]
    engine: Literal["local", "ray"] = Field(description="where models work: on this machine, or on a Ray cluster")
    ray_address: str = Field(
        min_length=1, description="HOST:PORT of a cluster, or auto: RAY_ADDRESS, else the one this machine is part of"
    )
    replicas: Replicas = Field(description="auto: one per GPU, or one if there is none")
    num_workers: Few = Field(description="processes for work without a model, such as speech synthesis")
    batch_size: PositiveCount = Field(description="rows that a model processes at once")
    shard_size: PositiveCount = Field(description="rows that are saved at once")
    batch_invariant: bool = Field(
        description="sample in fixed shapes, score one row at a time, on one thread: no setting here can flip a unit"
    )
    num_processes: Few = Field(description="processes that share each training batch, one per GPU")
    fsdp: Literal["none", "full_shard"] = Field(
        description="full_shard: each training process has a part of the model under the adapter"
    )

    @model_validator(mode="after")
    def _shared_by_several(self) -> "Execution":
        if self.fsdp == "full_shard" and self.num_processes == 1:
            raise ValueError(
                "fsdp: full_shard shares a model among several processes, but num_processes is 1: "
                "set it to the number of GPUs, or fsdp to none"
            )
        return self

    @property
    def processes_sharing(self) -> int:
        """How many processes share the weights of a model that an adapter is trained on."""
        return self.num_processes if self.fsdp == "full_shard" else 1

    @property
    def rows_at_once(self) -> int:
        """How many rows a model is given at once."""
        return 1 if self.batch_invariant else self.batch_size
