#!/usr/bin/env python3
"""Has a reader of nsys' SQLite exports open a database, and compares its sums with vitrum's own table.

    run_nsys_reader.py nsys-ai|nsys-tui DATABASE KERN_SUM.json

The reader's program is the one beside the Python that runs this. KERN_SUM.json is of `vitrum profile stats -r
cuda_gpu_kern_sum -f json`. The reader has to count as many kernels, and to export each with times whose sums by name
are the same to the nanosecond; nsys-ai also has to find nothing wrong, and a kernel in a range of the launching thread.
Exits 1 if not.
"""
import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict

# Seconds: longer than any recording.
FOREVER = "1000000"


def install_extension():
    """Puts DuckDB's extension for SQLite, which nsys-ai reads databases with, where DuckDB looks for it without asking
    the network: in a home of its own, inside of the environment."""
    try:
        import duckdb
        import duckdb_extension_sqlite_scanner as package
    except ImportError:
        return
    version = f"v{duckdb.__version__}"
    source = os.path.join(os.path.dirname(package.__file__), "extensions", version, "sqlite_scanner.duckdb_extension")
    platform = duckdb.execute("PRAGMA platform").fetchone()[0]
    home = os.path.join(sys.prefix, "home")
    folder = os.path.join(home, ".duckdb", "extensions", version, platform)
    os.makedirs(folder, exist_ok=True)
    shutil.copy(source, folder)
    os.environ["HOME"] = home


def run(tool, *arguments):
    program = os.path.join(os.path.dirname(sys.executable), tool)
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
    if "falling back to sqlite3" in done.stderr:
        sys.exit(f"{tool} does not read the database with DuckDB:\n{done.stderr}")
    if done.returncode != 0:
        sys.exit(f"{tool} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def compare(what, found, expected):
    if found != expected:
        different = {key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)}
        for key in sorted(different)[:10]:
            print(f"error {what}: {key[:60]}: {found.get(key)} there, {expected.get(key)} here")
        sys.exit(f"{what}: {len(different)} of {len(expected)} kernel names differ")


def check_skills(tool, database, count):
    doctor = run(tool, "doctor", database)
    if ", 0 failed" not in doctor:
        sys.exit(f"{tool} doctor:\n{doctor}")
    kernels = json.loads(run(tool, "skill", "run", "nvtx_kernel_map", database, "--format", "json", "-p", f"limit={count}"))
    ranges = {row.get("nvtx_text") or row.get("nvtx_range") for row in kernels}
    if not any(text and text.split("/")[-1].strip() == "replay" for text in ranges):
        sys.exit(f"{tool} finds no kernel in a replay: {sorted(map(str, ranges))[:10]}")
    for skill in ("top_kernels", "memory_transfers", "sync_cost_analysis", "gpu_idle_gaps", "kernel_launch_pattern"):
        run(tool, "skill", "run", skill, database)


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    tool, database, table = sys.argv[1:]
    install_extension()
    with open(table) as file:
        rows = json.load(file)
    count = sum(row["Instances"] for row in rows)
    info = run(tool, "info", database)
    found = re.search(r"Kernels: (\d+)", info)
    if found is None or int(found[1]) != count:
        sys.exit(f"{tool} info does not count {count} kernels:\n{info}")
    sums = defaultdict(int)
    for row in csv.DictReader(io.StringIO(run(tool, "export-csv", database, "--gpu", "0", "--trim", "0", FOREVER))):
        sums[row["name"]] += int(row["end_ns"]) - int(row["start_ns"])
    compare(tool, dict(sums), {row["Name"]: row["Total Time (ns)"] for row in rows})
    for command in ("summary", "overlap", "tree"):
        extra = [] if command == "summary" else ["--gpu", "0", "--trim", "0", FOREVER]
        if not run(tool, command, database, *extra).strip():
            sys.exit(f"{tool} {command} says nothing")
    if tool == "nsys-ai":
        check_skills(tool, database, count)
    print(f"{tool}: {count} kernels, {len(rows)} names, {sum(sums.values())} ns")


if __name__ == "__main__":
    main()
