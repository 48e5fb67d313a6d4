"""Why a job waits: Slurm's reasons, which of them will not pass by themselves, and what helps."""

from __future__ import annotations

from .slurm_jobs import Job

_HOPELESS = (
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "BadConstraints",
    "AccountNotAllowed",
    "AccountingPolicy",
    "InvalidAccount",
    "InvalidQOS",
    "QOSNotAllowed",
    "JobHeldAdmin",
    "JobHeldUser",
    "DependencyNeverSatisfied",
)
_REMEDIES = (
    ("PartitionNodeLimit", "the partition has not as many nodes to give: write fewer nodes=, or another partition="),
    ("PartitionTimeLimit", "the partition allows less time: write a shorter time="),
    ("BadConstraints", "no node meets it: see sinfo --Node --long, and change constraint=, mem= or cpus_per_task="),
    ("Account", "write another account="),
    ("InvalidAccount", "write another account="),
    ("QOS", "write another qos=, or wait until its limit has room"),
    ("Assoc", "your account's limit is reached: wait until its other jobs are over"),
    ("JobHeld", "somebody holds it: scontrol release"),
    ("ReqNodeNotAvail", "nodes are drained, down or reserved: see sinfo --list-reasons, and write fewer nodes="),
    ("Nodes required", "nodes are drained, down or reserved: see sinfo --list-reasons, and write fewer nodes="),
    ("Partition", "the partition takes no jobs now: see sinfo, and write another partition="),
    ("Reservation", "nodes are reserved: see scontrol show reservation"),
    ("Resources", "the cluster is busy: wait longer (pending_timeout=), or ask for less"),
    ("Priority", "other jobs come first: wait longer (pending_timeout=), or ask for less"),
)


_REFUSALS = (
    ("partition", "write partition=NAME; sinfo lists them"),
    ("account", "write account=NAME; sacctmgr show associations user=$USER lists yours"),
    ("qos", "write another qos=; sacctmgr show qos lists them"),
    ("time limit", "write a shorter time=; sinfo --format='%P %l' shows each partition's longest"),
    ("memory", "write a smaller mem="),
    ("feature", "write another constraint=; sinfo --format='%N %f' shows what nodes offer"),
    ("More processors", "write fewer nodes= or cpus_per_task=, or another partition=; sinfo shows what there is"),
    ("node", "write fewer nodes= or cpus_per_task=, or another partition=; sinfo shows what there is"),
)


def refusal_remedy(said: str) -> str:
    """Return what helps where sbatch refuses a job, "" where nothing is known."""
    found = (text for word, text in _REFUSALS if word.lower() in said.lower())
    return "".join(f": {text}" for text in [next(found, "")] if text)


def is_hopeless(job: Job) -> bool:
    """Say whether a pending job will not start without somebody changing something."""
    return any(job.reason.startswith(word) for word in _HOPELESS)


def remedy(job: Job) -> str:
    """Return what helps a job that is pending, by Slurm's reason."""
    found = (text for word, text in _REMEDIES if job.reason.startswith(word))
    return next(found, f"see scontrol show job {job.id}, and wait longer with pending_timeout=")


def waiting_words(job: Job) -> str:
    """Return the live line of a job that waits: "pending: Resources (expected to start at 14:02)"."""
    start = f" (expected to start at {job.starts_at:%H:%M})" if job.starts_at else ""
    return f"pending: {job.reason or 'not looked at yet'}{start}"
