#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Several nodes on one machine: network namespaces behind a switch, with links of limited speed.

usage: cluster_test.py EXCHANGE CONCLAVE

Counted bytes against those of the network interfaces, a run over nodes against a run of one rank, and a node that
is cut off. Needs root and iproute2; skips (77) and says why where that is not permitted.
"""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
CONFIG = """run: {name: cluster}
model:
  hidden_size: 16
  num_hidden_layers: 2
  num_attention_heads: 2
  num_key_value_heads: 2
  intermediate_size: 20
  moe: {num_experts: 4, moe_intermediate_size: 12, router: {type: topk, top_k: 2}}
data: {seq_length: 32, train: [{path: text.txt, document_separator: "\\n\\n"}], valid: {fraction: 0.1}}
training: {train_iters: 12, global_batch_size: 8, micro_batch_size: 1, precision: fp64}
evaluation: {interval: 5, sample_tokens: 500}
logging: {interval: 1}
"""


def tool(*words):
    subprocess.run([str(w) for w in words], check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class Cluster:
    """Nodes 10.77.0.1, 10.77.0.2, ...; everything lives in namespaces of its own."""

    def __init__(self, nodes, ranks_per_node):
        self.nodes, self.ranks_per_node = nodes, ranks_per_node
        self.size = nodes * ranks_per_node
        self.prefix = f"conclave{os.getpid()}"
        self.switch = f"{self.prefix}-switch"

    def name(self, node):
        return f"{self.prefix}-{node}"

    def __enter__(self):
        try:
            tool("ip", "netns", "add", self.switch)
            tool("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
            tool("ip", "-n", self.switch, "link", "set", "br0", "up")
            for i in range(self.nodes):
                self.add(i)
        except subprocess.CalledProcessError as error:
            self.__exit__()
            print(f"skipped: {' '.join(error.cmd)}: {error.stderr.strip()}")
            sys.exit(SKIPPED)
        return self

    def add(self, i):
        node, port = self.name(i), f"port{i}"
        tool("ip", "netns", "add", node)
        tool("ip", "link", "add", "eth0", "netns", node, "type", "veth", "peer", "name", port, "netns", self.switch)
        tool("ip", "-n", node, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            tool("ip", "-n", node, "link", "set", link, "up")
        tool("ip", "-n", self.switch, "link", "set", port, "master", "br0", "up")
        for place, link in ((node, "eth0"), (self.switch, port)):
            tool("tc", "-n", place, "qdisc", "add", "dev", link, "root", "tbf", "rate", "4gbit", "burst", "1mb",
                 "limit", "256mb")

    def __exit__(self, *_):
        for name in [self.switch] + [self.name(i) for i in range(self.nodes)]:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    def cut(self, node):
        tool("ip", "-n", self.name(node), "link", "set", "eth0", "down")

    def start(self, *command, cwd=None):
        """One process a rank, as torchrun starts them."""
        processes = []
        for rank in range(self.size):
            node = rank // self.ranks_per_node
            environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(self.size),
                           "LOCAL_RANK": str(rank % self.ranks_per_node), "LOCAL_WORLD_SIZE": str(self.ranks_per_node),
                           "MASTER_ADDR": "10.77.0.1", "MASTER_PORT": "29500", "GLOO_SOCKET_IFNAME": "eth0",
                           "OMP_NUM_THREADS": "1", "RES_OPTIONS": "timeout:1 attempts:1"}
            processes.append(subprocess.Popen(
                ["ip", "netns", "exec", self.name(node), *map(str, command)], env=environment, cwd=cwd, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        return processes


def finish(processes, seconds=120):
    """Exit code and output of each rank."""
    results = []
    for process in processes:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for other in processes:
                other.kill()
            sys.exit(f"a rank did not end within {seconds} s")
        results.append((process.returncode, output))
    return results


def expect(condition, message):
    if not condition:
        sys.exit(f"FAILED: {message}")


def metrics(folder):
    values = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name, value in record.items():
            if name not in ("step", "time") and not name.startswith("perf/"):
                values[record["step"], name] = value
    return values


def exchange(program, nodes, ranks_per_node):
    with Cluster(nodes, ranks_per_node) as cluster:
        results = finish(cluster.start(program))
    print(f"{nodes} nodes of {ranks_per_node}", "".join(output for _, output in results), sep="\n", flush=True)
    expect(all(code == 0 for code, _ in results), "counted bytes are not those of the interfaces")


def train(program, folder):
    (folder / "text.txt").write_text("\n\n".join(f"document {i} says {i % 7} times {i + 1}" for i in range(400)))
    (folder / "cluster.yaml").write_text(CONFIG)
    environment = {**os.environ, "CONCLAVE_CACHE": str(folder / "cache")}
    os.environ.update(environment)
    alone = subprocess.run([program, "train", "cluster.yaml", "run.output_dir=one"], cwd=folder, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    expect(alone.returncode == 0, alone.stdout)
    spread = ["parallelism.expert_parallel_size=2", "parallelism.zero_stage=1"]
    with Cluster(2, 2) as cluster:
        for code, output in finish(cluster.start(program, "train", "cluster.yaml", "run.output_dir=many", *spread,
                                                 cwd=folder)):
            expect(code == 0, output)
        one, many = metrics(folder / "one"), metrics(folder / "many")
        for key, value in one.items():
            expect(key in many and abs(many[key] - value) <= 1e-9 * max(1e-3, abs(value)),
                   f"{key}: {value} on one rank, {many.get(key)} on two nodes")
        print(f"2 nodes of 2 train as one rank: {len(one)} numbers", flush=True)
        cut_off(cluster, program, folder, spread)


def cut_off(cluster, program, folder, spread):
    ranks = cluster.start(program, "train", "cluster.yaml", "run.output_dir=cut", "training.train_iters=100000",
                          "evaluation.interval=null", "parallelism.timeout_seconds=5", *spread, cwd=folder)
    deadline = time.monotonic() + 60
    path = folder / "cut/metrics.jsonl"
    while time.monotonic() < deadline and not (path.exists() and path.read_text().count("\n") > 20):
        time.sleep(0.1)
    cluster.cut(1)
    begin = time.monotonic()
    results = finish(ranks, seconds=60)
    print(f"a node is cut off: the ranks end after {time.monotonic() - begin:.0f} s", flush=True)
    for rank, (code, output) in enumerate(results):
        last = output.strip().splitlines()[-1]
        print(f"  rank {rank}, exit code {code}: {last}", flush=True)
        expect(code == 5, f"rank {rank}: exit code {code}, expected 5")
        named = "rank 2, 3 of the run does not answer" if rank < 2 else "whoever keeps the store"
        expect(named in last, f"rank {rank} does not say '{named}'")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        print("skipped: network namespaces need root and iproute2 (ip, tc)")
        sys.exit(SKIPPED)
    exchange_program, conclave = (str(pathlib.Path(p).resolve()) for p in sys.argv[1:])
    exchange(exchange_program, 2, 2)
    exchange(exchange_program, 4, 1)
    with contextlib.ExitStack() as stack:
        train(conclave, pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())))


if __name__ == "__main__":
    main()
