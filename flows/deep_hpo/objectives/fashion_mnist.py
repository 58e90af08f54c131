"""Fashion-MNIST by a convolutional network.

Maximizes the `neg_log_loss` on the first fold (in nats per row; 0 is perfect), at the best epoch.
Data: 70,000 gray images of 28 x 28 pixels, values 0-255, ten classes of clothing. H. Xiao, K. Rasul and R. Vollgraf,
"Fashion-MNIST", Zalando Research, arXiv:1708.07747, 2017; MIT license; fetched by torchvision.
"""

import optuna

CLASSES = 10
EPOCHS = 30


def build(trial: optuna.Trial):
    """Two or three stages that halve the image. Input: `float32 (n_rows, 1, 28, 28)`; output: logits `(n_rows, 10)`."""
    from torch import nn

    channels = trial.suggest_categorical("channels", [32, 48, 64])
    stages = trial.suggest_int("stages", 2, 3)
    dropout = trial.suggest_float("dropout", 0.0, 0.6)
    widths = [channels * 2**k for k in range(stages)]
    return nn.Sequential(
        nn.BatchNorm2d(1),
        *(layer for n_in, n_out in zip([1, *widths], widths, strict=False) for layer in stage(n_in, n_out, dropout)),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(widths[-1] * 9, CLASSES),
    )


def stage(n_in: int, n_out: int, dropout: float):
    from torch import nn

    return (
        *(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()),
        *(nn.Conv2d(n_out, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Dropout2d(dropout / 2),
    )


def fit_plan(trial: optuna.Trial):
    return {
        "optimizer": trial.suggest_categorical("optimizer", ["AdamW", "NAdam"]),
        "lr": trial.suggest_float("lr", 3e-4, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [128, 256, 512]),
        "epochs": EPOCHS,
        "patience": 4,
        "transform": augmentation(trial),
    }


def augmentation(trial: optuna.Trial):
    """Mirror images and small shifts, drawn once per batch, or none."""
    if not trial.suggest_categorical("augmented", [True, False]):
        return None
    from torchvision.transforms import v2

    return v2.Compose([v2.RandomHorizontalFlip(), v2.RandomAffine(degrees=0, translate=(0.07, 0.07))])


if __name__ == "__main__":
    from shared.flow.tryout import try_out

    try_out(__file__)
