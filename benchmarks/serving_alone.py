"""A champion in a process of its own: `python -m benchmarks.serving_alone NAME`, asked by lines of rows, seconds and
the seconds of a pause after each prediction.

Answers each line with the milliseconds of the median prediction.
"""

import json
import sys
import time
from statistics import median

import pandas as pd

from shared.registry import client
from shared.training.threads import limit


def main(name: str) -> None:
    limit(1)
    version = client.champion(name)
    assert version is not None
    system = client.load_version(version)
    row = pd.DataFrame([[5.0] * len(system.signature.features)], columns=list(system.signature.features))
    print("ready", flush=True)
    for line in sys.stdin:
        n_rows, seconds, pause_s = json.loads(line)
        rows, took = pd.concat([row] * n_rows, ignore_index=True), []
        until = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < until or not took:
            system.predict(rows)
            took.append((time.perf_counter() - begun) * 1000)
            time.sleep(pause_s)
        print(median(took), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
