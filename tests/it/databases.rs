//! Statements that need a database for themselves: pgweir's own connections to it make way.

use crate::support::frontend::query;
use crate::support::{Frame, Postgres, Sessions, Wire, errors, eventually, password_of, proxy, tags};

async fn run(wire: &mut Wire, sql: &str) {
    let frames = wire.query(sql).await;
    assert_eq!(tags(&frames), "C Z", "{sql}: {:?}", errors(&frames));
}

async fn end_of(wire: &mut Wire) -> Vec<Frame> {
    wire.send(query("SELECT 1")).await;
    wire.rest().await
}

#[tokio::test]
async fn a_database_is_dropped_renamed_and_copied_by_its_clients() {
    let postgres = Postgres::shared();
    let (role, watcher) = (postgres.own_role("CREATEDB").await, postgres.own_role("SUPERUSER").await);
    let star = format!("[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}", postgres.port);
    let watch = format!("[watch]\nrole = \"{watcher}\"\npassword = \"{}\"", password_of(&watcher));
    let login = format!("[roles.{role}]\npassword = \"{}\"", password_of(&role));
    let proxy = proxy().toml(&star).toml(&watch).toml(&login).start().await;
    let mut admin = proxy.database("postgres").wire(&role).await;
    let (made, renamed, copy) = (format!("{role}_made"), format!("{role} \"renamed\""), format!("{role}_copy"));
    let quoted = format!("\"{}\"", renamed.replace('"', "\"\""));
    run(&mut admin, &format!("CREATE DATABASE {made}")).await;

    // One client stays, with no backend; one has listened.
    let mut user = proxy.database(&made).wire(&role).await;
    run(&mut user, "CREATE TABLE a (b int)").await;
    let mut listener = proxy.database(&made).wire(&role).await;
    run(&mut listener, "LISTEN news").await;
    run(&mut listener, "UNLISTEN news").await;
    let sessions = Sessions::of(postgres, &made).await;
    eventually(async || sessions.count("application_name = 'pgweir watch'").await == 1).await;
    assert!(sessions.open().await >= 2, "or nothing is shown");

    run(&mut admin, &format!("CREATE DATABASE {copy} TEMPLATE {made}")).await;
    run(&mut user, "INSERT INTO a VALUES (1)").await;
    run(&mut admin, &format!("ALTER DATABASE {made} RENAME TO {quoted}")).await;
    assert_eq!(proxy.database(&renamed).wire(&role).await.value("SELECT count(*) FROM a").await, "1");
    run(&mut admin, &format!("DROP DATABASE {quoted}")).await;
    assert_eq!(proxy.database(&copy).wire(&role).await.value("SELECT count(*) FROM a").await, "0");
    let client = proxy.database("postgres").connect(&role).await;
    client.execute(&format!("DROP DATABASE IF EXISTS {copy}"), &[]).await.expect("by the extended protocol");
    // The client that stayed hears what the server says now.
    assert_eq!(errors(&end_of(&mut user).await), ["3D000"]);
}

#[tokio::test]
async fn a_database_that_somebody_uses_is_not_dropped() {
    let postgres = Postgres::shared();
    let role = postgres.own_role("CREATEDB").await;
    let star = format!("[databases.\"*\"]\nhost = \"127.0.0.1\"\nport = {}", postgres.port);
    let proxy =
        proxy().toml(&star).toml(&format!("[roles.{role}]\npassword = \"{}\"", password_of(&role))).start().await;
    let mut admin = proxy.database("postgres").wire(&role).await;
    run(&mut admin, &format!("CREATE DATABASE {role}_used")).await;
    let mut user = proxy.database(&format!("{role}_used")).wire(&role).await;
    user.query("BEGIN").await;
    assert_eq!(admin.failure(&format!("DROP DATABASE {role}_used")).await, "55006");
    assert_eq!(tags(&user.query("COMMIT").await), "C Z");
    run(&mut admin, &format!("DROP DATABASE {role}_used")).await;
}
