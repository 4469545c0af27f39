"""The state of a cluster: each node's own account, also of those that do not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from raftdb.base.errors import Error, UnavailableError
from raftdb.client import connect
from raftdb.ops.target import SCHEME, Target

ASK_S = 2.0
"""How long one node may take to answer."""
AT_ONCE_MAX = 16


class Connection(Protocol):
    """What is needed of a connection to one node."""

    def status(self) -> Mapping[str, Any]:
        """What the node says of itself."""

    def close(self) -> None:
        """Close."""


ConnectTo = Callable[[str], Any]
"""Takes host:port, gives a connection to that node alone."""


@dataclass(slots=True)
class NodeState:
    """One node, as it says itself; only its names and `problem` when it does not answer."""

    node_id: str
    address: str
    location: str = ""
    problem: str = ""
    role: str = "unreachable"
    """`leader`, `follower`, `candidate`, `stopped`; `learner`: a follower that counts nowhere."""
    voter: bool = True
    """It counts in majorities, by the newest account of the members."""
    term: int = 0
    leader: str | None = None
    applied_index: int = 0
    commit_index: int = 0
    durable_index: int = 0
    lag_entries: int | None = None
    """Entries that the leader has committed and this node has not applied."""
    version: str = ""
    certificate_days_left: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def answers(self) -> bool:
        """It answered."""
        return not self.problem


@dataclass(slots=True)
class ClusterState:
    """All nodes together."""

    cluster_id: str
    nodes: list[NodeState]
    leader: str | None
    """The node that leads in the highest term seen, if it answers itself."""
    with_leader: int
    """Voters that are connected with it, itself included, by its own account."""
    problems: list[str] = field(default_factory=list)

    @property
    def quorum(self) -> int:
        """How many voters make a majority."""
        return self.voters // 2 + 1

    @property
    def voters(self) -> int:
        """How many members count."""
        return sum(1 for node in self.nodes if node.voter)

    @property
    def healthy(self) -> bool:
        """There is a leader, and a majority follows it."""
        return self.leader is not None and self.with_leader >= self.quorum


def connect_to_node(target: Target, timeout_s: float = ASK_S) -> ConnectTo:
    """How to reach one node of the cluster that `target` names; one that refuses the connection
    says so at once."""
    _scheme, _, rest = target.url.partition("://")
    query = rest.partition("?")[2]

    alone = {"pin": True, "read": "local", "timeout": timeout_s, "wait": False}

    def open_one(address: str) -> Any:
        url = f"{SCHEME}{address}/" + (f"?{query}" if query else "")
        return connect(url, **{**target.options, **alone})

    return open_one


def target_addresses(target: Target) -> list[str]:
    """The host:port texts in the target's URL."""
    rest = target.url.partition("://")[2]
    hosts = rest.partition("?")[0].partition("/")[0]
    return [host.strip() for host in hosts.split(",") if host.strip()]


def cluster_status(target: Target, timeout_s: float = ASK_S) -> ClusterState:
    """Ask every node that the target names, or that those know of. Raises UnavailableError when
    none answers, and whatever all of them refused with otherwise."""
    return gather(target_addresses(target), connect_to_node(target, timeout_s))


def gather(addresses: Iterable[str], connect_to: ConnectTo) -> ClusterState:
    """Ask these nodes, then those that they name as members."""
    answers: dict[str, Mapping[str, Any] | Error] = {}
    waiting = list(dict.fromkeys(addresses))
    while waiting:
        with ThreadPoolExecutor(min(len(waiting), AT_ONCE_MAX)) as pool:
            found = list(pool.map(lambda address: _ask(connect_to, address), waiting))
        answers.update(zip(waiting, found, strict=True))
        known = dict.fromkeys(
            str(member["client_address"])
            for answer in answers.values()
            if not isinstance(answer, Error)
            for member in answer.get("members", ())
        )
        waiting = [address for address in known if address not in answers]
    good = {address: one for address, one in answers.items() if not isinstance(one, Error)}
    if not good:
        _raise_first([one for one in answers.values() if isinstance(one, Error)])
    return _summarize(answers, good)


def _ask(connect_to: ConnectTo, address: str) -> Mapping[str, Any] | Error:
    try:
        connection = connect_to(address)
        try:
            status: Mapping[str, Any] = connection.status()
            return status
        finally:
            connection.close()
    except Error as error:
        return error


def _raise_first(errors: list[Error]) -> None:
    """What is wrong with the caller (a certificate, say) before what is wrong with the nodes."""
    for error in errors:
        if not error.retryable:
            raise error
    raise UnavailableError(
        "no node answers" + (f": {errors[0].message}" if errors else ""),
        hint="are the nodes running? raftdb start --config DIR/<node>/raftdb.toml",
    )


def _summarize(
    answers: Mapping[str, Mapping[str, Any] | Error], good: Mapping[str, Mapping[str, Any]]
) -> ClusterState:
    newest = max(good.values(), key=lambda one: (int(one["term"]), int(one["commit_index"])))
    nodes = []
    for member in newest["members"]:
        address = str(member["client_address"])
        answer = good.get(address) or next(
            (one for one in good.values() if one["node_id"] == member["node_id"]), None
        )
        if answer is None:
            problem = answers.get(address)
            text = problem.message if isinstance(problem, Error) else "no answer"
            nodes.append(NodeState(member["node_id"], address, member["location"], text))
        else:
            nodes.append(_state_of(answer, address))
        nodes[-1].voter = member.get("role", "voter") == "voter"
        if nodes[-1].role == "follower" and not nodes[-1].voter:
            nodes[-1].role = "learner"
    leads = [one for one in nodes if one.role == "leader" and one.term == int(newest["term"])]
    leader = leads[0] if leads else None
    with_leader = 0
    if leader is not None:
        seen = {one["node_id"]: one for one in leader.facts["members"]}
        for node in nodes:
            if node.answers:
                node.lag_entries = max(0, leader.commit_index - node.applied_index)
            if not node.voter:
                continue
            # One that is cut off from the others goes on saying whom it followed last.
            follows = node.answers and node.leader == leader.node_id and node.term == leader.term
            if node is leader or seen.get(node.node_id, {}).get("connected", follows):
                with_leader += 1
    state = ClusterState(
        str(newest["cluster_id"]), nodes, leader.node_id if leader else None, with_leader
    )
    state.problems = _problems(state)
    return state


def _state_of(answer: Mapping[str, Any], address: str) -> NodeState:
    days = answer.get("certificate_days_left")
    return NodeState(
        node_id=str(answer["node_id"]),
        address=address,
        location=str(answer.get("location", "")),
        role=str(answer["role"]),
        term=int(answer["term"]),
        leader=answer.get("leader"),
        applied_index=int(answer["applied_index"]),
        commit_index=int(answer["commit_index"]),
        durable_index=int(answer["durable_index"]),
        version=str(answer.get("version", "")),
        certificate_days_left=None if days is None else float(days),
        facts=dict(answer),
    )


def archives_of(state: ClusterState) -> list[dict[str, Any]]:
    """Each destination of the archive, by the node that knows it to be furthest."""
    best: dict[str, dict[str, Any]] = {}
    for node in state.nodes:
        for one in node.facts.get("archive", ()):
            facts = {**one, "node_id": node.node_id}
            known = best.get(one["url"])
            if known is None or one["archived_index"] > known["archived_index"]:
                best[one["url"]] = facts
    return list(best.values())


def troubles_of(node: NodeState) -> list[str]:
    """What keeps a node that answers from serving or leading, as predicates."""
    facts, found = node.facts, []
    if facts.get("comparison_reason"):
        found.append(f"does not serve: {facts['comparison_reason']}")
    if facts.get("damage"):
        found.append(f"is damaged: {facts['damage']['reason']}")
    if facts.get("disk_full"):
        found.append("has a full disk")
    if facts.get("disk_stalled"):
        found.append("has a disk that does not answer")
    if facts.get("stopping"):
        found.append("is being stopped")
    if (facts.get("copy") or {}).get("fetching", "idle") != "idle":
        found.append("fetches a copy of the database")
    return found


def _forgotten(state: ClusterState) -> list[str]:
    """Members that have lost the ends of their logs, and with them their votes, as others heard."""
    told = [node.facts["forgotten"] for node in state.nodes if "forgotten" in node.facts]
    stuck = next((one for one in told if one["problem"]), None)
    if stuck is not None:
        return [f"{stuck['problem']}; what helps: {stuck['hint']}"]
    lost = sorted({str(name) for one in told for name in one["members"]})
    return [
        f"{name} has lost the end of its log, and takes no part until a leader that the others "
        "elect without it relieves it of its vote: bring the other voters up"
        for name in lost
    ]


def no_leader(state: ClusterState) -> str:
    """Why `state.leader` is None: there is none, or only who asks does not see it."""
    answering = [node for node in state.nodes if node.answers]
    term = max((node.term for node in answering), default=0)
    follow = [node for node in answering if node.leader and node.term == term]
    unseen = [node.node_id for node in state.nodes if not node.answers]
    for name in unseen:
        told = [node.node_id for node in follow if node.leader == name]
        if told:
            return f"{name} leads, as {', '.join(told)} say, and does not answer here"
    return "there is no leader"


def _unheard(state: ClusterState) -> list[str]:
    """Members that answer here, and not the leader."""
    leader = next((node for node in state.nodes if node.node_id == state.leader), None)
    if leader is None:
        return []
    seen = {one["node_id"]: one.get("connected") for one in leader.facts["members"]}
    return [
        f"{node.node_id} is not connected with the leader {leader.node_id}: see both their logs"
        for node in state.nodes
        if node.answers and node is not leader and seen.get(node.node_id) is False
    ]


def _problems(state: ClusterState) -> list[str]:
    found = []
    if state.leader is None:
        found.append(no_leader(state))
        found += _forgotten(state)
    elif state.with_leader < state.quorum:
        found.append(
            f"no quorum: {state.with_leader} of {state.voters} members follow {state.leader}"
        )
    found += _unheard(state)
    for node in state.nodes:
        if not node.answers:
            found.append(f"{node.node_id} does not answer at {node.address}: {node.problem}")
        if node.facts.get("comparison_reason"):
            found.append(f"{node.node_id} does not serve: {node.facts['comparison_reason']}")
        damage = node.facts.get("damage")
        if damage:
            place = f", offset {damage['offset']}" if damage["offset"] >= 0 else ""
            found.append(
                f"{node.node_id} does not serve: {damage['reason']} ({damage['file']}{place}); "
                f"healing: {damage['state']}"
            )
        if node.facts.get("disk_full"):
            free = int(node.facts.get("disk_free_bytes", 0)) >> 20
            found.append(
                f"the disk of {node.node_id} is full ({free} MiB are free): it takes no writes, "
                "and goes on by itself when there is room"
            )
        if node.facts.get("disk_stalled"):
            found.append(f"the disk of {node.node_id} does not answer: it does not lead")
        days = node.certificate_days_left
        if days is not None and days < 30:
            found.append(f"the certificate of {node.node_id} expires in {days:.0f} days")
    leader = next((node for node in state.nodes if node.node_id == state.leader), None)
    survival = leader.facts.get("survival", {}) if leader is not None else {}
    if survival.get("problem"):
        found.append(str(survival["problem"]))
    for one in archives_of(state):
        if one["alarm"]:
            found.append(
                f"the archive {one['url']} is {one['lag_s']:.0f} s behind"
                + (f": {one['error']}" if one["error"] else "")
            )
        if one.get("verify_alarm"):
            found.append(
                f"the archive {one['url']} was not restored on trial for too long"
                + (f": {one['verify_problem']}" if one["verify_problem"] else "")
            )
    versions = sorted({node.version for node in state.nodes if node.version})
    if len(versions) > 1:
        found.append("nodes run different versions: " + ", ".join(versions))
    return found
