"""The C++ operators: found beside the package, or compiled at first use, or done without."""
import os

import torch


def load_operators() -> bool:
    """Whether the C++ operators are there."""
    if not hasattr(torch.ops.lrm4d, "gather_evidence"):
        torch.ops.load_library(os.environ["LRM4D_DEV_SO"])
    return True
