#!/usr/bin/env python3
"""Checks a trace against what its readers need. Standard library only.

    lint_trace.py TRACE[.gz]

Exits 1 and prints what is wrong if any rule is broken. Each rule names the reader that needs it.
"""
import gzip
import json
import re
import sys
from collections import Counter, defaultdict
from decimal import Decimal

NODE_CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
LAUNCH_CATEGORIES = ("cuda_runtime", "cuda_driver")
# Kineto's names for the facts of a launch, in its order.
LAUNCH_KEYS = (
    "correlation",
    "registers per thread",
    "shared memory",
    "blocks per SM",
    "warps per SM",
    "grid",
    "block",
    "est. achieved occupancy %",
    "graph id",
    "graph node id",
)
TOP_LEVEL_BEFORE = ("schemaVersion", "deviceProperties", "distributedInfo", "displayTimeUnit", "baseTimeNanoseconds")


def read_text(path):
    with (gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")) as file:
        return file.read()


def lint_top_level(text, trace, error):
    keys = list(trace)
    if "\x7f" in text:
        error("Perfetto gives up on a bare DEL in a value that it skips")
    for key in TOP_LEVEL_BEFORE:
        if key not in keys or keys.index(key) > keys.index("traceEvents"):
            error(f"{key} has to stand before traceEvents")
    if keys[-1] != "traceName" or "vitrum" not in keys[keys.index("traceEvents") :]:
        error("behind traceEvents: vitrum, and traceName last")
    head = text[: text.index('"traceEvents"')]
    if not any(re.search(r'"rank":\s+\d', line) for line in head.splitlines()):
        error('HTA reads the rank by line, with white space behind "rank":')
    for entry in recordings(trace):
        if not all(key in entry for key in ("version", "completeness", "account", "graphs", "device")):
            error("vitrum lacks version, device, graphs, completeness or account")


def recordings(trace):
    """What the trace says of each of its recordings."""
    vitrum = trace.get("vitrum", {})
    return vitrum.get("recordings", [vitrum])


def lint_slices(slices, error):
    for event in slices:
        missing = [key for key in ("ts", "dur", "name", "cat", "pid", "tid") if key not in event]
        if missing:
            error(f"X event without {missing[0]}")
            continue
        if not isinstance(event["pid"], int) or not isinstance(event["tid"], int):
            error("speedscope: pid and tid of X events have to be numbers")
        if event["ts"] < 0 or event["dur"] < 0:
            error("Perfetto drops slices of negative time")
        if event["ts"] > 2**53 / 4096:
            error("ts too large for nanoseconds in a double")
        name = event["name"]
        if name.startswith("ProfilerStep") and not re.fullmatch(r"ProfilerStep#\d+", name):
            error("HTA crashes on a name that begins ProfilerStep and is not ProfilerStep#N")


def lint_overlaps(slices, error):
    lanes = defaultdict(list)
    for event in slices:
        lanes[event["pid"], event["tid"]].append(event)
    for lane, events in lanes.items():
        events.sort(key=lambda event: (event["ts"], -event["dur"]))
        open_ends = []
        for event in events:
            while open_ends and open_ends[-1] <= event["ts"]:
                open_ends.pop()
            end = event["ts"] + event["dur"]
            if open_ends and end > open_ends[-1]:
                error(f"Perfetto drops slices that overlap partly, as on pid, tid {lane}")
                continue
            open_ends.append(end)


def lint_nodes(trace, slices, error):
    launches = [event["args"]["correlation"] for event in slices if event["cat"] in LAUNCH_CATEGORIES]
    if len(set(launches)) != len(launches):
        error("two launches have the same correlation")
    nodes = [event for event in slices if event["cat"] in NODE_CATEGORIES]
    for event in nodes:
        args = event.get("args", {})
        of_graph = ("graph id", "graph node id") if event["cat"] == "kernel" else ("bytes",)
        for key in ("device", "context", "stream", "correlation", *of_graph):
            if key not in args:
                error(f"a node without args.{key}")
        if args.get("stream", 1) < 1:
            error("HTA assigns nodes to steps only for streams above 0")
    for event in slices:
        if event["cat"] not in NODE_CATEGORIES and "stream" in event.get("args", {}):
            error("HTA counts every slice with a stream as a kernel")
    unlaunched = {event["args"]["correlation"] for event in nodes} - set(launches)
    if unlaunched:
        error(f"HTA drops the nodes of {len(unlaunched)} correlations without a launch")
    per_replay = Counter(event["args"]["correlation"] for event in nodes)
    flows = Counter((event["ph"], event["id"]) for event in trace["traceEvents"] if event["ph"] in "sf")
    for correlation, count in per_replay.items():
        if (flows["s", correlation], flows["f", correlation]) != (1, count):
            error("a replay has to have one flow start, and one flow end for each node")
    if sum(flows.values()) != len(per_replay) + len(nodes):
        error("a flow without its slice")


def lint_calls(slices, error):
    for event in slices:
        args = event.get("args", {})
        if event["cat"] in LAUNCH_CATEGORIES and ("graph" in args) != (args["correlation"] < 2**32):
            error("a call that is no replay has a correlation that may be a replay's")
        if event["cat"] == "kernel" and "grid" in args:
            if [key for key in args if key in LAUNCH_KEYS] != list(LAUNCH_KEYS):
                error("the facts of a launch are not all there, or not in Kineto's order")
        if event["cat"] in ("gpu_memcpy", "gpu_memset") and event["dur"] > 0:
            rate = args.get("memory bandwidth (GB/s)")
            if rate is None or abs(float(rate) * float(event["dur"]) * 1000 - args["bytes"]) > 1e-6 * args["bytes"]:
                error("HTA sums up memory bandwidth (GB/s), which is not bytes for each nanosecond")
        if ("lib_start_us" in args) != ("lib_dur_us" in args) or min(args.get("lib_start_us", 0), args.get("lib_dur_us", 0)) < 0:
            error("a node's second times are not both there, or negative")


def lint_merged(trace, error):
    """Several recordings in one trace have nothing in common: no process, no launch, no stream, no graph."""
    owners = {}
    for at, entry in enumerate(recordings(trace)):
        for pid in entry["merged"]["pids"].values():
            if owners.setdefault(pid, at) != at or pid >= 2**32:
                error("a pid of two recordings, or one that Perfetto cuts")
    names = {}
    used = defaultdict(set)
    for event in trace["traceEvents"]:
        owner = owners.get(event["pid"])
        if owner is None:
            error("an event of no recording's process")
        if event["name"] == "process_name":
            names.setdefault(event["args"]["name"], set()).add(event["pid"])
        args = event.get("args", {})
        for key in ("correlation", "stream", "device", "graph id", "graph node id"):
            if key in args:
                used[key, args[key]].add(owner)
        if event["ph"] in "sf":
            used["correlation", event["id"]].add(owner)
    if any(len(of) > 1 for of in used.values()):
        error("a number of two recordings")
    if {event["pid"] for event in trace["traceEvents"]} - set().union(*names.values()):
        error("a process without a name")
    if any(len(pids) > 1 for pids in names.values()):
        error("processes whose names do not say which is which")
    if len({device["id"] for device in trace["deviceProperties"]}) != len(recordings(trace)):
        error("each recording has a device of its own")
    if all(event["ts"] > 0 for event in trace["traceEvents"] if event["ph"] == "X"):
        error("the first moment of all has to be 0")


def lint(path):
    errors = Counter()
    error = lambda message: errors.update([message])
    if not path.endswith((".json", ".gz")):
        error("HTA: the name has to end in .json or .gz")
    text = read_text(path)
    trace = json.loads(text, parse_float=Decimal)
    events = trace["traceEvents"]
    if not events or events[0]["ph"] != "M":
        error("HTA takes the first event for unlinked: it has to be an M")
    slices = [event for event in events if event["ph"] == "X"]
    lint_top_level(text, trace, error)
    lint_slices(slices, error)
    if not errors:
        lint_overlaps(slices, error)
        lint_nodes(trace, slices, error)
        lint_calls(slices, error)
        if "recordings" in trace["vitrum"]:
            lint_merged(trace, error)
    return slices, errors


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    slices, errors = lint(sys.argv[1])
    for message, count in errors.items():
        print(f"error: {message} ({count} times)")
    print(f"{len(slices)} slices, {sum(errors.values())} errors")
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
