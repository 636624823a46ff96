//! Topologies that others report: Aurora's functions, played by functions of the same names that read a table, and
//! Patroni's REST API, played by a server that answers as Patroni 4 does.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Postgres, Proxy, eventually, proxy, tags};

const ADDRESS: &str = "SELECT host(inet_server_addr())";

async fn primary() -> Postgres {
    let primary = Postgres::private(&[]);
    primary.role("app").await;
    let sql = "CREATE ROLE prober LOGIN PASSWORD 'prober-password'; CREATE TABLE t (a int); GRANT ALL ON t TO app";
    primary.admin("postgres").await.batch_execute(sql).await.expect("a table");
    primary
}

/// Hosts of SHOW READERS with their states.
async fn readers(proxy: &Proxy) -> Vec<(String, String)> {
    let lines = proxy.console("SHOW READERS").await.into_iter();
    lines.map(|line| (line["host"].clone(), line["state"].clone())).collect()
}

fn states(primary: &Postgres, expected: &[(u8, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(n, state)| (format!("127.0.0.{n}:{}", primary.port), (*state).to_owned())).collect()
}

/// The server that is the primary for `app`.
async fn used(proxy: &Proxy) -> Vec<String> {
    let lines = proxy.console("SHOW TOPOLOGY").await.into_iter();
    lines.filter(|line| line["database"] == "app" && line["used"] == "1").map(|line| line["host"].clone()).collect()
}

/// The columns that pgweir reads, and some that it does not.
const AURORA: &str = "
    CREATE TABLE instances (server_id text PRIMARY KEY, lag float8);
    CREATE TABLE deployments (status text);
    GRANT SELECT ON instances, deployments TO PUBLIC;
    CREATE FUNCTION pg_catalog.aurora_replica_status() RETURNS TABLE (server_id text, session_id text,
        durable_lsn bigint, last_update_timestamp timestamptz, replica_lag_in_msec float8) LANGUAGE sql AS
        'SELECT server_id, CASE WHEN lag IS NULL THEN ''MASTER_SESSION_ID'' ELSE server_id END, 1::bigint, now(), lag
            FROM public.instances';
    CREATE FUNCTION pg_catalog.get_blue_green_fast_switchover_metadata(text) RETURNS TABLE (status text) LANGUAGE sql AS
        'SELECT status FROM public.deployments';
    INSERT INTO instances VALUES ('1', NULL), ('2', 15.5)";

#[tokio::test]
async fn auroras_readers_come_and_go_with_its_instances_and_lag_as_it_says() {
    let primary = primary().await;
    let admin = primary.admin("postgres").await;
    admin.batch_execute(AURORA).await.expect("functions");
    let _standbys = (primary.standby_at(2), primary.standby_at(3));
    let aurora = "topology = \"aurora\"\naurora = { instance_host = \"127.0.0.?\" }\n\
         probe = { role = \"prober\", password = \"prober-password\" }\n";
    let port = primary.port;
    let proxy = proxy()
        .postgres(&primary)
        .dbname("postgres")
        .toml(&format!("[databases.app]\nhost = \"127.0.0.1\"\n{aurora}"))
        .toml(&format!(
            "[databases.reads]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"postgres\"\nreaders = true\n\
             lag_max = \"1s\"\n{aurora}"
        ))
        .start()
        .await;
    let mut reader = proxy.database("reads").wire("app").await;
    assert_eq!(reader.value(ADDRESS).await, "127.0.0.2");
    let mut writer = proxy.wire("app").await;
    assert_eq!(tags(&writer.query("INSERT INTO t VALUES (1)").await), "C Z");
    admin.batch_execute("INSERT INTO instances VALUES ('3', 8)").await.expect("an instance more");
    let all = states(&primary, &[(1, "spare"), (2, "used"), (3, "used")]);
    eventually(async || readers(&proxy).await == all).await;
    admin.batch_execute("UPDATE instances SET lag = 5000 WHERE server_id = '2'").await.expect("it lags");
    let lagging = states(&primary, &[(1, "spare"), (2, "draining"), (3, "used")]);
    eventually(async || readers(&proxy).await == lagging).await;
    assert_eq!(reader.value(ADDRESS).await, "127.0.0.3");
    admin.batch_execute("DELETE FROM instances WHERE server_id = '2'").await.expect("an instance less");
    let fewer = states(&primary, &[(1, "spare"), (3, "used")]);
    eventually(async || readers(&proxy).await == fewer).await;
    // During the switch of a blue/green deployment nobody is believed.
    admin.batch_execute("INSERT INTO deployments VALUES ('SWITCHOVER_IN_PROGRESS')").await.expect("a switch");
    eventually(async || used(&proxy).await.is_empty()).await;
}

/// A member of Patroni's cluster.
#[derive(Clone)]
struct Member {
    name: &'static str,
    host: String,
    port: u16,
    api: String,
    role: &'static str,
    timeline: u32,
    location: u64,
}

impl Member {
    /// As `/cluster` lists it.
    fn listed(&self) -> Value {
        let role = if self.role == "primary" { "leader" } else { "replica" };
        json!({
            "name": self.name, "role": role, "state": if role == "leader" { "running" } else { "streaming" },
            "api_url": format!("{}/patroni", self.api), "host": self.host, "port": self.port,
            "timeline": self.timeline, "lag": 0
        })
    }

    /// As its own API shows it.
    fn own(&self) -> Value {
        let xlog = match self.role {
            "primary" => json!({ "location": self.location }),
            _ => json!({
                "received_location": self.location, "replayed_location": self.location, "replayed_timestamp": null,
                "paused": false
            }),
        };
        json!({
            "state": "running", "postmaster_start_time": "2026-11-01 10:00:00.000000+00:00", "role": self.role,
            "server_version": 150014, "xlog": xlog, "timeline": self.timeline, "dcs_last_seen": 1793700000,
            "database_system_identifier": "7268616322854375442",
            "patroni": { "version": "4.0.4", "scope": "demo", "name": self.name }
        })
    }
}

/// Patroni's REST API of each member; their state is what the test says.
#[derive(Clone, Default)]
struct Patroni(Arc<Mutex<Vec<Member>>>);

impl Patroni {
    /// One more member, which answers from now on.
    async fn member(&self, name: &'static str, postgres: &Postgres, role: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let api = format!("http://{}", listener.local_addr().expect("bound"));
        let (host, port) = (postgres.host.to_string(), postgres.port);
        let member = Member { name, host, port, api: api.clone(), role, timeline: 1, location: 67_395_656 };
        self.0.lock().expect("no panic").push(member);
        let cluster = self.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(cluster.clone().answer(name, socket));
            }
        });
        api
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Member)) {
        change(self.0.lock().expect("no panic").iter_mut().find(|member| member.name == name).expect("a member"));
    }

    async fn answer(self, name: &'static str, mut socket: TcpStream) {
        let (mut request, mut bytes) = (Vec::new(), [0; 1024]);
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match socket.read(&mut bytes).await {
                Ok(read @ 1..) => request.extend_from_slice(&bytes[..read]),
                _ => return,
            }
        }
        let request = String::from_utf8_lossy(&request).into_owned();
        let path = request.split(' ').nth(1).unwrap_or_default();
        let members = self.0.lock().expect("no panic").clone();
        let own = members.iter().find(|member| member.name == name).expect("a member");
        let (is_ok, body) = match path {
            "/cluster" => {
                let listed: Vec<_> = members.iter().map(Member::listed).collect();
                (true, json!({ "members": listed, "scope": "demo" }))
            }
            "/primary" => (own.role == "primary", own.own()),
            "/replica" => (own.role == "replica", own.own()),
            _ => (false, json!({})),
        };
        let (status, body) = (if is_ok { "200 OK" } else { "503 Service Unavailable" }, body.to_string());
        let head = "Server: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json\r\n";
        let answer = format!("HTTP/1.0 {status}\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len());
        let _ = socket.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test]
async fn patronis_leader_is_followed_and_its_replicas_are_read_from() {
    let mut primary = primary().await;
    let standby = primary.standby();
    let patroni = Patroni::default();
    let api = patroni.member("a", &primary, "primary").await;
    patroni.member("b", &standby, "replica").await;
    let (port, topology) = (primary.port, format!("topology = \"patroni\"\npatroni = {{ url = {api:?} }}\n"));
    let proxy = proxy()
        .postgres(&primary)
        .dbname("postgres")
        .toml(&format!("[databases.app]\nhost = \"127.0.0.1\"\n{topology}"))
        .toml(&format!(
            "[databases.reads]\nhost = \"127.0.0.1\"\nport = {port}\ndbname = \"postgres\"\nreaders = true\n\
             lag_max = \"1s\"\nfallback_max = 2\n{topology}"
        ))
        .start()
        .await;
    let (mut writer, mut reader) = (proxy.wire("app").await, proxy.database("reads").wire("app").await);
    assert_eq!(tags(&writer.query("INSERT INTO t VALUES (1)").await), "C Z");
    assert_eq!(reader.value(ADDRESS).await, "127.0.0.2");
    // The replica does not replay what the leader writes.
    patroni.change("a", |leader| leader.location += 8192);
    let lagging = states(&primary, &[(1, "used"), (2, "draining")]);
    eventually(async || readers(&proxy).await == lagging).await;
    assert_eq!(reader.value(ADDRESS).await, "127.0.0.1", "the leader stands in");
    patroni.change("b", |replica| replica.location += 8192);
    let caught_up = states(&primary, &[(1, "spare"), (2, "used")]);
    eventually(async || readers(&proxy).await == caught_up).await;
    // A switchover: the leader is stopped, and the replica promoted.
    patroni.change("a", |leader| leader.role = "replica");
    eventually(async || used(&proxy).await.is_empty()).await;
    primary.stop();
    standby.promote();
    patroni.change("b", |replica| (replica.role, replica.timeline) = ("primary", 2));
    assert_eq!(tags(&writer.query("INSERT INTO t VALUES (2)").await), "C Z");
    assert_eq!(writer.value(ADDRESS).await, "127.0.0.2");
}
