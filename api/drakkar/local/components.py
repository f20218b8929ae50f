"""The parts of the control plane: their identities, command lines and configuration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drakkar.local import kubeconfig, pki
from drakkar.local.manifests import DNS_USER
from drakkar.local.network import API_PORT, CLUSTER_DOMAIN, AddressPlan
from drakkar.local.pki import Authority, Identity

APISERVER = "kube-apiserver"
CONTROLLERS = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
DNS = "coredns"
ETCD = "etcd"

DNS_READY_PORT = 8181

# Clients of the control plane -> who they are.
_CLIENTS = {
    "admin": Identity("drakkar-admin", ["system:masters"]),
    CONTROLLERS: Identity("system:kube-controller-manager"),
    SCHEDULER: Identity("system:kube-scheduler"),
    "kube-proxy": Identity("system:kube-proxy"),
    DNS: Identity(DNS_USER),
    # These two act for the machine's root and may do everything; named apart for the audit log.
    "storage": Identity("drakkar-storage", ["system:masters"]),
    "kwok": Identity("drakkar-kwok", ["system:masters"]),
}


@dataclass(frozen=True, slots=True)
class ControlPlaneFiles:
    """The files of a control plane in a cluster's folder."""

    root: Path

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    def client(self, name: str) -> Path:
        """The kubeconfig of a component."""
        return self.pki / f"{name}.kubeconfig"

    @property
    def authority(self) -> Authority:
        return Authority(self.pki)

    @property
    def front_authority(self) -> Authority:
        """Vouches for the API server towards the API servers it hands requests on to."""
        return Authority(self.pki, "front-proxy-ca")


def ensure_credentials(files: ControlPlaneFiles, plan: AddressPlan, context: str) -> None:
    """Make every certificate and kubeconfig of the control plane that does not exist yet."""
    files.authority.ensure()
    files.front_authority.ensure()
    pki.ensure_signing_key(files.pki, "service-accounts")
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    names.append(f"kubernetes.default.svc.{CLUSTER_DOMAIN}")
    addresses = ["127.0.0.1", plan.host, plan.api_service]
    files.authority.issue("apiserver", Identity("kube-apiserver", hosts=[*names, *addresses]))
    files.front_authority.issue("front-proxy", Identity("front-proxy-client"))
    for name, identity in _CLIENTS.items():
        write_client(files, plan, context, name, identity)


def write_client(
    files: ControlPlaneFiles, plan: AddressPlan, context: str, name: str, identity: Identity
) -> Path:
    """Make a client's certificate and kubeconfig unless they exist; return the kubeconfig."""
    path = files.client(name)
    if not path.exists():
        certificate, key = files.authority.issue(name, identity)
        config = kubeconfig.render(
            context=context,
            server=plan.api_url,
            authority=files.authority.certificate.read_bytes(),
            certificate=certificate.read_bytes(),
            key=key.read_bytes(),
        )
        kubeconfig.write(path, config)
    return path


def etcd_command(etcd: Path, plan: AddressPlan, data: Path) -> list[str]:
    """etcd for a cluster that is thrown away: fast, because it never waits for the disk."""
    clients = f"http://{plan.loopback}:2379"
    peers = f"http://{plan.loopback}:2380"
    return [
        str(etcd),
        "--name=drakkar",
        f"--data-dir={data}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=drakkar={peers}",
        "--unsafe-no-fsync",
        "--quota-backend-bytes=4294967296",
        "--auto-compaction-retention=10m",
        "--logger=zap",
        "--log-level=warn",
    ]


def apiserver_command(kube: Path, files: ControlPlaneFiles, plan: AddressPlan) -> list[str]:
    """The API server, on the bridge: reached from the host, the nodes and pods alike."""
    folder = files.pki
    return [
        str(kube),
        APISERVER,
        f"--bind-address={plan.host}",
        f"--advertise-address={plan.host}",
        f"--secure-port={API_PORT}",
        f"--etcd-servers=http://{plan.loopback}:2379",
        f"--service-cluster-ip-range={plan.services}",
        f"--tls-cert-file={folder}/apiserver.crt",
        f"--tls-private-key-file={folder}/apiserver.key",
        f"--client-ca-file={files.authority.certificate}",
        f"--kubelet-certificate-authority={files.authority.certificate}",
        f"--kubelet-client-certificate={folder}/apiserver.crt",
        f"--kubelet-client-key={folder}/apiserver.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-key-file={folder}/service-accounts.pub",
        f"--service-account-signing-key-file={folder}/service-accounts.key",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--requestheader-client-ca-file={files.front_authority.certificate}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={folder}/front-proxy.crt",
        f"--proxy-client-key-file={folder}/front-proxy.key",
        # The host has no kube-proxy: webhooks and API services are called at their pods.
        "--enable-aggregator-routing=true",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
        "--profiling=false",
    ]


def controllers_command(
    kube: Path, files: ControlPlaneFiles, plan: AddressPlan, *, grace_seconds: int
) -> list[str]:
    """The controller manager, which takes a node for lost after `grace_seconds` of silence."""
    client = files.client(CONTROLLERS)
    return [
        str(kube),
        CONTROLLERS,
        f"--kubeconfig={client}",
        f"--authentication-kubeconfig={client}",
        f"--authorization-kubeconfig={client}",
        f"--bind-address={plan.host}",
        f"--service-account-private-key-file={files.pki}/service-accounts.key",
        f"--root-ca-file={files.authority.certificate}",
        f"--cluster-signing-cert-file={files.authority.certificate}",
        f"--cluster-signing-key-file={files.authority.key}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--allocate-node-cidrs=false",
        "--node-monitor-period=2s",
        f"--node-monitor-grace-period={grace_seconds}s",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        "--profiling=false",
    ]


def scheduler_config(files: ControlPlaneFiles) -> dict[str, Any]:
    """kube-scheduler's own limit of 50 requests a second would be all one measures."""
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {
            "kubeconfig": str(files.client(SCHEDULER)),
            "qps": 5000,
            "burst": 10000,
        },
        "leaderElection": {"leaderElect": False},
    }


def scheduler_command(
    kube: Path, files: ControlPlaneFiles, plan: AddressPlan, config: Path
) -> list[str]:
    client = files.client(SCHEDULER)
    return [
        str(kube),
        SCHEDULER,
        f"--config={config}",
        f"--authentication-kubeconfig={client}",
        f"--authorization-kubeconfig={client}",
        f"--bind-address={plan.host}",
    ]


def corefile(files: ControlPlaneFiles, plan: AddressPlan, resolvers: Iterable[str]) -> str:
    """CoreDNS's configuration.

    Answers about the cluster come from memory and live one second: a replaced pod is found at
    its new address at once. Everything else is asked of the machine's resolvers.
    """
    lines = [
        ".:53 {",
        f"    bind {plan.host}",
        "    errors",
        f"    health {plan.host}:8080",
        f"    ready {plan.host}:{DNS_READY_PORT}",
        f"    kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{",
        f"        kubeconfig {files.client(DNS)}",
        "        pods insecure",
        "        ttl 1",
        "        fallthrough in-addr.arpa",
        "    }",
    ]
    upstream = " ".join(resolvers)
    if upstream:
        lines += [
            "    cache 30 {",
            f"        disable success {CLUSTER_DOMAIN}",
            f"        disable denial {CLUSTER_DOMAIN}",
            "    }",
            f"    forward . {upstream}",
        ]
    return "\n".join([*lines, "}", ""])


def resolvers(resolv_conf: str) -> list[str]:
    """The servers named in the text of a resolv.conf, at most the three that count."""
    lines = (line.split() for line in resolv_conf.splitlines())
    found = [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
    # An address with a zone (fe80::1%eth0) is one CoreDNS does not take.
    return [address for address in found if "%" not in address][:3]


def dns_command(coredns: Path, config: Path) -> list[str]:
    return [str(coredns), "-conf", str(config)]
