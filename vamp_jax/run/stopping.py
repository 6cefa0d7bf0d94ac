"""When the training of a run ends."""

import ml_collections


def should_stop(done: int, best_epoch: int, config: ml_collections.ConfigDict) -> bool:
    """After the last epoch, or `early_stopping_epochs` without a better validation ELBO.

    As in the authors' code the count begins with the last epoch of the warm-up. (Theirs stops when
    it exceeds the number; the paper, and this, when it reaches it: one epoch earlier.)
    """
    waited = done - max(best_epoch, config.warmup_epochs - 1)
    return done >= config.num_epochs or waited >= config.early_stopping_epochs
