"""Run the suppression kernels for GPUs in Triton's interpreter, on the CPU.

A program of its own, since Triton decides when it is first imported whether it interprets:
`python -m tests.ops.interpreted_nms CASES RESULTS`, both files of torch.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch

from detect.ops import grouped_nms, grouped_nms_mask, nms_triton


def main(cases_file, results_file):
    torch.set_num_threads(1)
    results = {}
    for name, case in torch.load(cases_file).items():
        for constant, value in case.pop("constants").items():
            setattr(nms_triton, constant, value)
        mask = grouped_nms_mask(**case, method="triton")
        kept = grouped_nms(**case, method="triton") if len(mask) < 300 else None
        results[name] = (mask, kept)
    torch.save(results, results_file)


if __name__ == "__main__":
    main(*sys.argv[1:])
