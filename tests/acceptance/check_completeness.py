#!/usr/bin/env python3
"""Proves that a trace holds every node of every replay, from counts that neither recorder nor report made.

    check_completeness.py TRACE[.gz] GRAPHS.json METRICS_BEFORE.txt METRICS_AFTER.txt
    check_completeness.py --selftest

GRAPHS.json is a list of graphs as `vitrum graph --json` prints them. The two scrapes of /metrics are taken before the
recording starts and after it stops, with no step in between that is not recorded. Expected, for every graph: its nodes
times the difference of its vitrum:graph_replays_total. Every expected node has to be in the trace exactly once. Of a
recording that keeps what comes last, replays may be missing that it says were overwritten, of steps before those that it
says are whole.
"""
import gzip
import json
import re
import sys
from collections import Counter, defaultdict

REPLAYS = re.compile(r'^vitrum:graph_replays_total\{[^}]*graph="([^"]+)"[^}]*\}\s+([0-9.eE+]+)$')
ORDINAL_MASK = 2**32 - 1


def read_text(path):
    with (gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8")) as file:
        return file.read()


def replays_of(scrape):
    matches = filter(None, map(REPLAYS.match, scrape.splitlines()))
    return Counter({match[1]: round(float(match[2])) for match in matches})


def graph_name(graph):
    return f'{graph["key"]["kind"]}.{graph["key"]["bucket"]}'


def check(trace, graphs, before, after):
    """Returns what does not hold, in words."""
    problems = []
    expected = Counter(after)
    expected.subtract(before)
    expected = {name: count for name, count in expected.items() if count}
    tables = {graph_name(graph): graph["nodes"] for graph in graphs}
    slices = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    # Calls of the driver that launch no graph name none.
    calls = [event for event in slices if event["cat"] == "cuda_driver"]
    launches = {event["args"]["correlation"]: event for event in calls if "graph" in event["args"]}
    nodes = defaultdict(Counter)
    for event in slices:
        if event["cat"] == "kernel":
            args = event["args"]
            identity = (args["graph node id"] & ORDINAL_MASK, event["name"], args["layer"], args["op"])
            nodes[args["correlation"]][identity] += 1

    found = Counter(event["args"]["graph"] for event in launches.values())
    counted = trace["vitrum"].get("completeness", {})
    gone = Counter({graph["key"]: graph.get("replays_overwritten", 0) for graph in counted.get("graphs", [])})
    for name in sorted(set(expected) | set(found)):
        if expected.get(name, 0) != found[name] + gone[name]:
            overwritten = f", {gone[name]} overwritten" if gone[name] else ""
            problems.append(
                f"{name}: {expected.get(name, 0)} replays counted by the server, {found[name]} in the trace{overwritten}"
            )
    whole_from = counted.get("whole_from_step")
    if whole_from is None and any(gone.values()):
        problems.append("replays were overwritten, and it is not said which steps are whole")
    steps = sorted({event["args"]["step"] for event in launches.values()}) if whole_from is not None else []
    if steps and steps != list(range(whole_from, whole_from + len(steps))):
        problems.append(f"steps are missing behind step {whole_from}, from which on all are there")
    toggled = trace["vitrum"]["toggled"]
    for correlation, launch in launches.items():
        name = launch["args"]["graph"]
        if name not in tables:
            problems.append(f"{name} is not among the graphs")
            continue
        table = enumerate(tables[name])
        wanted = {(at, node["kernel"], node["place"]["layer"], node["place"]["op"]): 1 for at, node in table}
        if toggled and not launch["args"]["traced"]:
            wanted = {}
        if dict(nodes[correlation]) != wanted:
            there = sum(nodes[correlation].values())
            problems.append(f"replay {correlation} of {name}: {len(wanted)} nodes expected, {there} there, or not the same")
    lost = set(nodes) - set(launches)
    if lost:
        problems.append(f"{len(lost)} correlations have nodes and no launch")
    return problems


def selftest():
    nodes = [{"kernel": f"k{at}", "place": {"layer": at, "op": "mlp.up"}} for at in range(3)]
    graphs = [{"id": 1, "key": {"kind": "forward.decode", "bucket": 8}, "nodes": nodes}]
    metric = 'vitrum:graph_replays_total{graph="forward.decode.8"} %s\n'
    before, after = replays_of("# a comment\n" + metric % "5"), replays_of(metric % "7.0")

    def trace():
        events = []
        for replay in (1, 2):
            launch = {"correlation": replay, "graph": "forward.decode.8", "traced": True}
            events.append({"ph": "X", "cat": "cuda_driver", "name": "replay", "args": launch})
            for at in range(3):
                args = {"correlation": replay, "graph node id": 1 << 32 | at, "layer": at, "op": "mlp.up"}
                events.append({"ph": "X", "cat": "kernel", "name": f"k{at}", "args": args})
        return {"traceEvents": events, "vitrum": {"toggled": False}}

    whole = trace()
    assert check(whole, graphs, before, after) == [], "a whole trace passes"
    wait = {"ph": "X", "cat": "cuda_driver", "name": "cuStreamSynchronize", "args": {"correlation": 1 << 32}}
    whole["traceEvents"].append(wait)
    assert check(whole, graphs, before, after) == [], "a call that launches nothing is no replay"
    without_node = trace()
    del without_node["traceEvents"][2]
    assert check(without_node, graphs, before, after), "a dropped node is noticed"
    twice = trace()
    twice["traceEvents"].append(twice["traceEvents"][2])
    assert check(twice, graphs, before, after), "a node that stands twice is noticed"
    exchanged = trace()
    exchanged["traceEvents"][2] = exchanged["traceEvents"][1]
    assert check(exchanged, graphs, before, after), "a dropped node whose count another makes up is noticed"
    without_replay = trace()
    without_replay["traceEvents"] = without_replay["traceEvents"][:4]
    assert check(without_replay, graphs, before, after), "a dropped replay is noticed"
    without_launch = trace()
    del without_launch["traceEvents"][0]
    assert check(without_launch, graphs, before, after), "nodes without a launch are noticed"
    assert check(trace(), graphs, before, replays_of(metric % "8")), "a replay that only the server counted is noticed"
    assert check(trace(), [], before, after), "an unknown graph is noticed"
    ring = trace()
    for event in ring["traceEvents"]:
        event["args"]["step"] = event["args"]["correlation"] + 5
    gone = {"key": "forward.decode.8", "replays_overwritten": 3}
    ring["vitrum"]["completeness"] = {"whole_from_step": 6, "graphs": [gone]}
    assert check(ring, graphs, before, replays_of(metric % "10")) == [], "a ring without its first replays passes"
    assert check(ring, graphs, before, replays_of(metric % "11")), "a replay that is neither there nor gone is noticed"
    ring["vitrum"]["completeness"]["whole_from_step"] = 5
    assert check(ring, graphs, before, replays_of(metric % "10")), "a step that should be whole is noticed"
    print("selftest passed")


def main():
    if sys.argv[1:] == ["--selftest"]:
        return selftest()
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    trace, graphs = (json.loads(read_text(path)) for path in sys.argv[1:3])
    before, after = (replays_of(read_text(path)) for path in sys.argv[3:5])
    problems = check(trace, graphs, before, after)
    for problem in problems[:20]:
        print(f"error: {problem}")
    replays = sum(after.values()) - sum(before.values())
    print(f"{replays} replays counted by the server, {len(problems)} problems")
    if replays == 0:
        sys.exit("error: no replay between the two scrapes: nothing is proved")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
