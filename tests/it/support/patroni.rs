//! A cluster that Patroni runs: two servers, of which one is the leader, and a third node that only votes.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, Config, NoTls};

use super::postgres::{free_port, scratch};
use super::process::{output_of, root, server_bin, server_program};

/// A cluster has to be made, copied and joined, each step at Patroni's pace.
const PATIENCE: Duration = Duration::from_secs(180);

/// Its name.
const SCOPE: &str = "demo";

/// Runs a node until we end, however that comes; then ends it, its server, and its files.
const SUPERVISOR: &str = r#"
dir=$1 bin=$2; shift 2
"$@" >"$dir/log" 2>&1 & node=$!
cat >/dev/null
kill -KILL $node
[ ! -e "$dir/data" ] || "$bin/pg_ctl" stop -s -m immediate -D "$dir/data"
rm -rf "$dir""#;

/// A running cluster; dropped, it is gone with its files.
pub(crate) struct PatroniCluster {
    nodes: Vec<PatroniNode>,
    /// Where both servers listen, at the addresses of their nodes.
    pub(crate) port: u16,
    /// Where Patroni answers at the same addresses.
    pub(crate) api: u16,
}

struct PatroniNode {
    address: Ipv4Addr,
    dir: PathBuf,
    supervisor: Child,
}

impl Drop for PatroniNode {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        self.supervisor.wait().expect("the supervisor is our child");
    }
}

impl PatroniCluster {
    /// With a leader, and a replica that has everything that the leader says is committed. Before a leader stops, what
    /// [`Self::before_stop`] was given runs.
    pub(crate) async fn start() -> Self {
        let (port, api, raft) = (free_port(), free_port(), free_port());
        let nodes = (1..=3).map(|number| PatroniNode::start(number, port, api, raft)).collect();
        let cluster = Self { nodes, port, api };
        cluster
            .until("a leader and a replica", |members| {
                let states: Vec<_> =
                    members.iter().map(|member| member["state"].as_str().unwrap_or_default()).collect();
                states.contains(&"running") && states.contains(&"streaming")
            })
            .await;
        cluster
    }

    /// What runs before a leader stops, as a script.
    pub(crate) fn before_stop(&self, script: &str) {
        for node in &self.nodes {
            write(&node.dir.join("hold"), script, 0o755);
        }
    }

    /// The addresses of the two servers.
    pub(crate) fn hosts(&self) -> [Ipv4Addr; 2] {
        [self.nodes[0].address, self.nodes[1].address]
    }

    /// The address of the leader; `None`: there is none.
    pub(crate) fn leader(&self) -> Option<Ipv4Addr> {
        let members = self.members();
        let leader = members.iter().find(|member| member["role"] == "leader" && member["state"] == "running")?;
        leader["host"].as_str()?.parse().ok()
    }

    /// The superuser at the leader.
    pub(crate) async fn admin(&self) -> Client {
        let leader = self.leader().expect("there is one");
        let mut config = Config::new();
        config.host(leader.to_string()).port(self.port).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await.expect("it is trusted");
        tokio::spawn(connection);
        client
    }

    /// The replica becomes the leader, as `patronictl switchover` has it; returns when that has happened.
    pub(crate) async fn switch_over(&self) {
        let leader = self.leader().expect("there is one");
        let names = self.nodes.iter().map(|node| (node.address, node.name()));
        let names: Vec<_> = names.take(2).collect();
        let name = |is_leader: bool| {
            let (_, name) = names.iter().find(|(address, _)| (*address == leader) == is_leader).expect("one of two");
            name.clone()
        };
        let (leader_name, candidate) = (name(true), name(false));
        let end = Instant::now() + PATIENCE;
        loop {
            let mut ctl = Command::new("/usr/bin/python3");
            ctl.env("PYTHONPATH", installed()).args(["-c", "from patroni.ctl import ctl; ctl(None)", "-c"]);
            ctl.arg(self.nodes[0].dir.join("node.yml")).args(["switchover", SCOPE, "--force"]);
            ctl.args(["--leader", &leader_name, "--candidate", &candidate]);
            let done =
                tokio::task::spawn_blocking(move || ctl.output()).await.expect("no panic").expect("Python is there");
            if self.leader().is_some_and(|now| now != leader) {
                return;
            }
            // A leader that has just assigned its synchronous standby forgets what it was asked.
            assert!(Instant::now() < end, "no switchover: {}", String::from_utf8_lossy(&done.stdout));
        }
    }

    /// Kills the first process of the leader's server; returns when a leader runs again, which may be the same one.
    pub(crate) async fn crash_leader(&self) {
        let (leader, timeline) = (self.leader().expect("there is one"), self.timeline());
        let node = self.nodes.iter().find(|node| node.address == leader).expect("one of ours");
        let pid = fs::read_to_string(node.dir.join("data/postmaster.pid")).expect("it runs");
        let pid = pid.lines().next().and_then(|line| line.parse().ok()).and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process"), rustix::process::Signal::KILL).expect("it runs");
        self.until("leader again", |_| self.timeline() > timeline).await;
    }

    /// Of the leader that runs; each promotion begins another.
    fn timeline(&self) -> Option<u64> {
        let members = self.members();
        let leader = members.iter().find(|member| member["role"] == "leader" && member["state"] == "running")?;
        leader["timeline"].as_u64()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let members = self.members();
            if is_so(&members) {
                return;
            }
            if Instant::now() > end {
                let logs = self.nodes.iter().map(|node| fs::read_to_string(node.dir.join("log")).unwrap_or_default());
                panic!("no {what}: {members:?}\n{}", logs.collect::<Vec<_>>().join("\n"));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// `GET /cluster` of the first node that answers.
    fn members(&self) -> Vec<Value> {
        let mut answers = self.nodes.iter().take(2).filter_map(|node| ask(node.address, self.api));
        let answer = answers.find_map(|answer| serde_json::from_str::<Value>(answer.split_once("\r\n\r\n")?.1).ok());
        answer.and_then(|answer| answer["members"].as_array().cloned()).unwrap_or_default()
    }
}

fn ask(address: Ipv4Addr, port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((address, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(b"GET /cluster HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Where `scripts/drivers` installs Patroni.
fn installed() -> PathBuf {
    root().join("target/tools/patroni")
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("our own directory");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own file");
}

impl PatroniNode {
    fn name(&self) -> String {
        format!("node{}", self.address.octets()[3])
    }

    fn start(number: u8, port: u16, api: u16, raft: u16) -> Self {
        let (bin, dir) = (server_bin(), scratch());
        let address = Ipv4Addr::new(127, 0, 0, number);
        // The server's user may not be able to read the checkout.
        let mut copy = Command::new("sh");
        copy.args(["-c", "cp -r \"$0\" \"$1\" && chmod -R a+rX \"$1\""]).arg(installed()).arg(dir.join("site"));
        output_of(copy);
        let at = |number: u8| format!("127.0.0.{number}:{raft}");
        let partners: Vec<_> = (1..=3).filter(|other| *other != number).map(at).collect();
        let shown = dir.display();
        let own = at(number);
        let raft = format!(
            "raft: {{data_dir: {shown}/raft, self_addr: '{own}', bind_addr: '{own}', partner_addrs: {partners:?}}}\n"
        );
        let node = format!(
            "scope: {SCOPE}
name: node{number}
restapi: {{listen: '{address}:{api}', connect_address: '{address}:{api}'}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    primary_start_timeout: 0
    synchronous_mode: true
    postgresql: {{use_pg_rewind: true, parameters: {{fsync: 'off', max_connections: 200}}}}
  initdb: [encoding: UTF8, locale: C, data-checksums, no-sync]
postgresql:
  listen: '{address}:{port}'
  connect_address: '{address}:{port}'
  data_dir: {shown}/data
  bin_dir: {}
  pgpass: {shown}/pgpass
  before_stop: {shown}/before-stop
  parameters: {{unix_socket_directories: ''}}
  authentication:
    superuser: {{username: postgres, password: secret}}
    replication: {{username: replicator, password: secret}}
    rewind: {{username: rewinder, password: secret}}
  pg_hba: [host all all 127.0.0.0/8 trust, host replication all 127.0.0.0/8 trust]
",
            bin.display()
        );
        let (text, program) = match number {
            3 => (raft, "from patroni.raft_controller import main; main()"),
            _ => (node + &raft, "from patroni.__main__ import main; main()"),
        };
        write(&dir.join("node.yml"), &text, 0o644);
        let hold = format!("#!/bin/sh\n[ ! -x {shown}/hold ] || exec {shown}/hold\n");
        write(&dir.join("before-stop"), &hold, 0o755);
        let mut supervisor = server_program(Path::new("/bin"), "sh");
        supervisor.args(["-c", SUPERVISOR, "sh"]).arg(&dir).arg(&bin).args(["/usr/bin/python3", "-c", program]);
        supervisor.arg(dir.join("node.yml")).env("PYTHONPATH", dir.join("site")).env("PYTHONDONTWRITEBYTECODE", "1");
        supervisor.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let supervisor = supervisor.spawn().expect("a shell");
        Self { address, dir, supervisor }
    }
}
