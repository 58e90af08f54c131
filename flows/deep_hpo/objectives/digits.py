"""Handwritten digits by neural networks: a multilayer perceptron or a small convolutional network, in one space.

Maximizes the `neg_log_loss` on the first fold (in nats per row; 0 is perfect), at the best epoch.
Data: 1,797 gray images of 8 x 8 pixels, values 0-16, ten classes. E. Alpaydin and C. Kaynak, "Optical Recognition of
Handwritten Digits", UCI Machine Learning Repository, 1998, CC BY 4.0; packaged with scikit-learn.
"""

from itertools import pairwise

import optuna

CLASSES = 10
EPOCHS = 20


def build(trial: optuna.Trial):
    """The architecture is the first choice. Input: `float32 (n_rows, 1, 8, 8)`; output: logits `(n_rows, 10)`."""
    architectures = {"mlp": mlp, "cnn": cnn}
    return architectures[trial.suggest_categorical("architecture", list(architectures))](trial)


def mlp(trial: optuna.Trial):
    from torch import nn

    width = trial.suggest_int("mlp_width", 64, 256, log=True)
    depth = trial.suggest_int("mlp_depth", 1, 3)
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    hidden = [
        layer
        for n_in, n_out in pairwise([64] + [width] * depth)
        for layer in (nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(), nn.Dropout(dropout))
    ]
    return nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), *hidden, nn.Linear(width, CLASSES))


def cnn(trial: optuna.Trial):
    from torch import nn

    channels = trial.suggest_int("cnn_channels", 16, 32, step=8)
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    return nn.Sequential(
        nn.BatchNorm2d(1),
        *convolution(1, channels),
        nn.MaxPool2d(2),
        *convolution(channels, 2 * channels),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * channels * 2 * 2, CLASSES),
    )


def convolution(n_in: int, n_out: int):
    from torch import nn

    return nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()


def fit_plan(trial: optuna.Trial):
    return {
        "optimizer": trial.suggest_categorical("optimizer", ["AdamW", "NAdam"]),
        "lr": trial.suggest_float("lr", 1e-3, 2e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [64, 128]),
        "epochs": EPOCHS,
        "patience": 5,
        "transform": augmentation(trial),
    }


def augmentation(trial: optuna.Trial):
    """Small rotations, shifts and scalings, or none."""
    strength = trial.suggest_float("augmentation", 0.0, 1.0, step=0.5)
    if not strength:
        return None
    from torchvision.transforms import InterpolationMode, v2

    return v2.RandomAffine(
        degrees=8 * strength,
        translate=(0.06 * strength, 0.06 * strength),
        scale=(1 - 0.06 * strength, 1 + 0.06 * strength),
        interpolation=InterpolationMode.BILINEAR,
    )


if __name__ == "__main__":
    from shared.flow.tryout import try_out

    try_out(__file__)
