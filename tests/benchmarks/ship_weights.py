"""Makes the checkpoint in ``fer_ray/weights`` from one of a run, its weights in float16.

    python tests/benchmarks/ship_weights.py RUN/checkpoint

The model card tells of what is shipped, so it comes from an evaluation of that:

    fer-ray evaluate fer_ray/weights --dataset fer-data --output runs/evaluation
    fer-ray report RUN runs/evaluation --output runs/page
    cp runs/page/model_card.md fer_ray/weights

The int8 model, whose table in the card comes from a second evaluation with ``--precision int8``:

    fer-ray export fer_ray/weights --int8 --dataset fer-data --output DIR --into-checkpoint
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import load_file

from fer_ray.inference.checkpoint import read_info, save_checkpoint
from fer_ray.storage.inputs import INFO_FILE, WEIGHTS_FILE
from fer_ray.weights import SHIPPED_CHECKPOINT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    checkpoint = parser.parse_args().checkpoint
    weights = load_file(checkpoint / WEIGHTS_FILE)
    halved = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "checkpoint"
        save_checkpoint(made, halved, read_info(checkpoint))
        for name in (WEIGHTS_FILE, INFO_FILE):
            shutil.copyfile(made / name, SHIPPED_CHECKPOINT / name)
    print(f"{SHIPPED_CHECKPOINT}: {(SHIPPED_CHECKPOINT / WEIGHTS_FILE).stat().st_size:,} bytes of weights")


if __name__ == "__main__":
    main()
