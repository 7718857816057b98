"""What a wrong word was meant to be: nnctl's own near it, or what nnctl calls another tool's.

What is meant is suggested, never guessed in silence. The table has one line for each thing that
other tools call otherwise, under what the word was used as.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

# A name is nnctl's word for the same thing; a sentence says what to do instead.
OTHER_WORDS: dict[str, dict[str, str]] = {
    "layer": {
        "dense linear fc fully_connected inner_product": "affine",
        "batch_normalization bn": "batch_norm",
        "lrelu prelu": "leaky_relu",
        "logistic": "sigmoid",
        "softmax log_softmax": "leave it out: the loss softmax_cross_entropy computes it",
        "flatten reshape": "leave it out: images reach the network flattened",
        "input": "leave it out: the data set decides how many inputs there are",
        "kind type name": "a layer is written as its name, as in `- affine: 50`",
        "conv conv2d convolution max_pool max_pooling": "nnctl has fully connected layers only",
    },
    "loss": {
        "mse l2 quadratic squared_error mean_squared": "mean_squared_error",
        "cross_entropy ce nll negative_log_likelihood categorical_cross_entropy softmax "
        "sparse_categorical_cross_entropy log_loss": "softmax_cross_entropy",
    },
    "optimizer": {
        "gd gradient_descent stochastic_gradient_descent": "sgd",
        "sgd_momentum": "momentum",
        "nag nesterov_momentum": "nesterov",
    },
    "schedule": {
        "none fixed": "constant",
        "step_lr multi_step": "step",
        "cosine_annealing cosine_decay": "cosine",
        "super_convergence": "one_cycle",
    },
    "initializer": {
        "he kaiming kaiming_normal": "he_normal",
        "kaiming_uniform": "he_uniform",
        "xavier glorot glorot_normal": "xavier_normal",
        "glorot_uniform": "xavier_uniform",
        "gaussian random random_normal": "normal",
        "zero": "zeros",
    },
    "key": {
        "lr eta step_rate": "learning_rate",
        "type": "kind",
        "layers model architecture": "network",
        "criterion objective loss_function": "loss",
        "optim": "optimizer",
        "scheduler lr_schedule lr_scheduler": "schedule",
        "max_epochs num_epochs n_epochs": "epochs",
        "bs minibatch_size mini_batch_size": "batch_size",
        "random_seed random_state": "seed",
        "val val_size val_split validation_split validation_size valid_size": "validation",
        "n_train num_train": "train_size",
        "augmentation": "augment",
        "grad_clip clip max_norm gradient_clip": "clip_norm",
        "l2 decay weight_regularization": "weight_decay",
        "beta_1 beta_2 betas": "beta1 and beta2 are two keys",
        "eps": "epsilon",
        "gamma": "factor",
        "step_size": "every",
        "alpha negative_slope": "slope",
        "p prob drop_prob": "rate",
        "size width neurons n_units num_units hidden out_features out": "units",
        "in in_features inputs": "leave it out: the layer before decides how many inputs there are",
        "activation": "an activation is a layer of its own, as in `- relu`",
        "init weight_init kernel_initializer": "initializer",
        "bias use_bias": "leave it out: every affine layer has a bias",
        "config set method trials parallel parameters prune": (
            "a sweep file has it: `nnctl sweep FILE`"
        ),
        "device gpu": "leave it out: nnctl computes on the processor",
    },
}


def hint(wrong: str, valid: Iterable[str], used_as: str = "", keys: Sequence[str] = ()) -> str:
    """Return the end of a message: the word that was meant, or all that could be.

    `used_as` is what `wrong` was to be, as in `OTHER_WORDS`. `keys` are the full paths of all keys
    of a config: a key that has its place elsewhere is named with it.

    >>> hint("Re-Lu", ["relu", "tanh"]), hint("x", ["relu", "tanh"])
    ('; did you mean relu?', '; valid are relu, tanh')
    >>> hint("Dense", ["affine", "relu"], "layer"), hint("lr", ["name"], "key", ["o.learning_rate"])
    ('; did you mean affine?', '; did you mean o.learning_rate?')
    """
    valid = list(valid)
    own = _TABLE.get(used_as, {}).get(_plain(wrong), "")
    if " " in own:
        return f"; {own}"
    word = own or wrong
    if own in valid:
        return f"; did you mean {own}?"
    if places := [key for key in keys if key.rpartition(".")[2] == word]:
        return f"; did you mean {' or '.join(places[:3])}?"
    near = difflib.get_close_matches(word.lower().replace("-", "_"), valid, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; valid are {', '.join(valid)}" if valid else ""


def _plain(word: str) -> str:
    """Return `word` without what tools write differently: capitals, underscores, "loss".

    >>> _plain("Cross-Entropy_Loss")
    'crossentropy'
    """
    return re.sub(r"[\W_]", "", word.lower()).removesuffix("loss")


_TABLE = {
    used_as: {_plain(other): own for others, own in words.items() for other in others.split()}
    for used_as, words in OTHER_WORDS.items()
}
