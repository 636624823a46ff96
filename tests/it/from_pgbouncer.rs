//! A configuration that Debian's PgBouncer serves is imported, and pgweir serves the same clients at the same address.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use crate::support::{Endpoint, Postgres, eventually, output_of, password_of};

/// Starts a program, which ends with the test, and waits until it listens.
async fn started(mut program: Command, addr: SocketAddr) -> Child {
    program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let child = program.spawn().expect("it is installed");
    eventually(async || TcpStream::connect(addr).await.is_ok()).await;
    child
}

/// What this role sees of itself, or why it is refused.
async fn whoami(at: &Endpoint, role: &str, password: &str) -> Result<(String, String), SqlState> {
    let mut config = at.config(role);
    config.password(password);
    let code = |error: tokio_postgres::Error| error.code().cloned().unwrap_or(SqlState::INTERNAL_ERROR);
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(code)?;
    tokio::spawn(connection);
    let rows = client.simple_query("SELECT current_user, current_database()").await.map_err(code)?;
    let row = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let row = row.expect("a row");
    Ok((row.get(0).unwrap_or_default().to_owned(), row.get(1).unwrap_or_default().to_owned()))
}

/// Who gets in, who does not, and whether the console opens: the same for both.
async fn serves_the_same(at: &Endpoint, dbname: &str, roles: &[&str]) {
    for role in roles {
        let seen = whoami(at, role, &password_of(role)).await;
        assert_eq!(seen, Ok(((*role).to_owned(), dbname.to_owned())));
        assert!(whoami(at, role, "wrong").await.is_err(), "{role} with a wrong password");
    }
    assert!(whoami(at, "stranger", "any").await.is_err());
    let console = at.database("pgbouncer").connect(roles[0]).await;
    assert!(console.simple_query("SHOW POOLS").await.expect("the console").len() > 1);
    assert!(at.database("pgbouncer").try_connect(roles[1]).await.is_err(), "not in admin_users");
}

#[tokio::test]
async fn what_pgbouncer_served_pgweir_serves() {
    let postgres = Postgres::shared();
    let dbname = postgres.database().await;
    // In auth_file with a password, in it with a verifier, and found by auth_query.
    let (plain, verified, found) =
        (postgres.own_role("").await, postgres.own_role("").await, postgres.own_role("").await);
    let secret = postgres.admin("postgres").await;
    let secret = secret.query_one("SELECT rolpassword FROM pg_authid WHERE rolname = $1", &[&verified]).await;
    let secret: String = secret.expect("a role").get(0);
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a port").port();
    let at = Endpoint { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), dbname: "app".to_owned() };

    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("our own directory");
    let file = |name: &str| dir.path().join(name);
    let users = format!("\"{plain}\" \"{}\"\n\"{verified}\" \"{secret}\"\n", password_of(&plain));
    fs::write(file("userlist.txt"), users).expect("our own directory");
    let ini = format!(
        "[databases]\napp = host=127.0.0.1 port={} dbname={dbname} auth_user=postgres\n\
         [users]\n{plain} = pool_mode=session\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n\
         auth_file = {}\nadmin_users = {plain}\npool_mode = transaction\ndefault_pool_size = 3\n",
        postgres.port,
        file("userlist.txt").display()
    );
    fs::write(file("pgbouncer.ini"), ini).expect("our own directory");

    // It does not run as root.
    let mut pgbouncer = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        pgbouncer.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    pgbouncer.args(["--pdeathsig", "KILL", "/usr/sbin/pgbouncer"]).arg(file("pgbouncer.ini"));
    let mut pgbouncer = started(pgbouncer, at.addr).await;
    let roles = [plain.as_str(), &verified, &found];
    serves_the_same(&at, &dbname, &roles).await;
    pgbouncer.kill().await.expect("our own child");

    let mut import = std::process::Command::new(env!("CARGO_BIN_EXE_pgweir"));
    import.arg("import").arg(file("pgbouncer.ini")).arg("--output").arg(file("proxy.toml"));
    output_of(import);
    let mut check = std::process::Command::new(env!("CARGO_BIN_EXE_pgweir"));
    check.arg("check").arg(file("proxy.toml"));
    output_of(check);
    without_http(&file("proxy.toml"));
    let mut pgweir = Command::new("setpriv");
    pgweir.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_pgweir"), "--config"]).arg(file("proxy.toml"));
    let _pgweir = started(pgweir, at.addr).await;
    serves_the_same(&at, &dbname, &roles).await;
}

/// Other tests run beside this one, and its address for metrics would be the default one.
fn without_http(file: &Path) {
    let text = fs::read_to_string(file).expect("it was written");
    let text = text.replacen("\n[admin]\n", "\n[admin]\naddr = \"off\"\n", 1);
    assert!(text.contains("addr = \"off\""), "{text}");
    fs::write(file, text).expect("our own directory");
}
