"""Many short steps on the embedded task, for tests that interrupt a run."""

from configs import common


def get_config():
    config = common.classification("reviews")
    config.data.update(
        source="embedded",
        tokenizer="word_level",
        max_length=32,
        buckets=(32,),
        train_rows=60,
        dev_rows=31,
    )
    config.data.root = None
    config.method = "head"  # Compiles quickest.
    config.privacy.update(
        delta=1e-3,
        engine="vmap",
        expected_batch_size=20,
        microbatch_size=8,
        physical_batch_size=8,
    )
    config.training.update(epochs=666.0, log_every=1, checkpoint_every=1000)
    return config
