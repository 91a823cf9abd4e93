"""What a worker process of a pool does in test_pickling: a process of its own imports nothing else."""

from tosa import EncoderShape, MergeSpec, make_plan


def tokens_kept(keep_ratio: float) -> int:
    return make_plan(MergeSpec("tome", keep_ratio=keep_ratio), EncoderShape(2, (24, 24))).tokens_out
