#!/usr/bin/env python3
"""Runs the analyses of HolisticTraceAnalysis on a trace, and compares its sums with the trace's own.

    HTA_DISABLE_NS_ROUNDING=1 run_hta.py TRACE [KERN_SUM.json]

No exception is not enough, so: the kernels that HTA loads are those of the trace, and the total time of every kernel
name is the same. With KERN_SUM.json (`vitrum profile stats -r cuda_gpu_kern_sum -f json`) also the same as vitrum's own
table. Exits 1 if an analysis fails or a sum differs.
"""
import gzip
import json
import logging
import os
import sys
import warnings
from collections import defaultdict
from decimal import Decimal

warnings.filterwarnings("ignore")
if os.environ.get("HTA_DISABLE_NS_ROUNDING") != "1":
    sys.exit("set HTA_DISABLE_NS_ROUNDING=1: without it HTA rounds every start up and every end down to whole microseconds")

from hta.configs.config import logger
from hta.trace_analysis import TraceAnalysis

logging.disable(logging.CRITICAL)
logger.setLevel(100)


def own_sums_ns(path, categories):
    """Total duration by name of the slices of these categories, in exact nanoseconds."""
    with (gzip.open(path, "rt") if path.endswith(".gz") else open(path)) as file:
        trace = json.load(file, parse_float=Decimal)
    sums = defaultdict(int)
    for event in trace["traceEvents"]:
        if event["ph"] == "X" and event["cat"] in categories:
            sums[event["name"]] += int(event["dur"] * 1000)
    return dict(sums)


def hta_sums_ns(analysis):
    frame = analysis.t.get_trace(0)
    kernels = frame[frame["stream"] >= 0]
    names = analysis.t.symbol_table.get_sym_table()
    sums = kernels.groupby("name")["dur"].sum()
    return {names[name]: round(float(total) * 1000) for name, total in sums.items()}


def run_analyses(analysis):
    failures = 0
    calls = {
        "get_temporal_breakdown": lambda: analysis.get_temporal_breakdown(visualize=False),
        "get_gpu_kernel_breakdown": lambda: analysis.get_gpu_kernel_breakdown(visualize=False, include_memory_kernels=True),
        "get_idle_time_breakdown": lambda: analysis.get_idle_time_breakdown(ranks=[0], visualize=False),
        "get_cuda_kernel_launch_stats": lambda: analysis.get_cuda_kernel_launch_stats(ranks=[0], visualize=False),
        "get_queue_length_summary": lambda: analysis.get_queue_length_summary(ranks=[0]),
        "get_gpu_user_annotation_breakdown": lambda: analysis.get_gpu_user_annotation_breakdown(visualize=False),
    }
    for name, call in calls.items():
        try:
            call()
            print(f"ok    {name}")
        except Exception as error:
            failures += 1
            print(f"error {name}: {type(error).__name__}: {error}")
    return failures


def compare(ours, theirs, what):
    different = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    for name in sorted(different)[:10]:
        print(f"error {what}: {name[:60]}: {ours.get(name)} ns here, {theirs.get(name)} ns there")
    print(f"{what}: {len(ours)} kernel names, {sum(ours.values())} ns, {len(different)} different")
    return len(different)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    path = os.path.abspath(sys.argv[1])
    # HTA leaves out the last step unless it is told not to.
    analysis = TraceAnalysis(trace_files={0: path}, trace_dir="/", include_last_profiler_step=True)
    failures = run_analyses(analysis)
    ours = own_sums_ns(path, ("kernel", "gpu_memcpy", "gpu_memset"))
    failures += compare(ours, hta_sums_ns(analysis), "HTA against the trace")
    if len(sys.argv) == 3:
        with open(sys.argv[2]) as file:
            table = {row["Name"]: row["Total Time (ns)"] for row in json.load(file)}
        failures += compare(own_sums_ns(path, ("kernel",)), table, "vitrum's table against the trace")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
